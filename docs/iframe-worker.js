// The search runs in a Worker, which a page that is read from the disk may not have. There it runs in a frame of the page.
// Its script looks for the name IFrameWorker to know.
"use strict";

if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class IFrameWorker extends EventTarget {
    #ready;

    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.srcdoc = "<!doctype html><title>search</title>";
      this.#ready = new Promise((resolve) => {
        frame.onload = async () => {
          const scope = frame.contentWindow;
          const load = (source) =>
            new Promise((loaded, failed) => {
              const script = scope.document.createElement("script");
              Object.assign(script, { src: source, onload: loaded, onerror: failed });
              scope.document.body.append(script);
            });
          scope.importScripts = async (...sources) => {
            for (const source of sources) await load(source);
          };
          scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
          await load(new URL(url, document.baseURI).href);
          resolve(scope);
        };
      });
      document.body.append(frame);
    }

    async postMessage(data) {
      const scope = await this.#ready;
      scope.dispatchEvent(new MessageEvent("message", { data }));
    }

    terminate() {}
  };
}
