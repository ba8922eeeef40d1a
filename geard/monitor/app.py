"""The Flask app: the pages, what may be done there, and what programs read (api.py). All is answered from State.

Rule: a request waits for the supervisor at most a few seconds, and for a job server only when it drops a job there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import parse_qsl

from flask import Flask, Response, abort, g, redirect, request
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from geard import __version__, exits
from geard.deadletters.store import Filter
from geard.errors import GeardError
from geard.monitor import format as formats
from geard.monitor import pages
from geard.monitor.api import Api, as_json, number
from geard.monitor.daemons import RELOAD_SECONDS
from geard.monitor.files import Static
from geard.monitor.live import Live, TooManyStreams
from geard.monitor.security import Security
from geard.monitor.state import State
from geard.supervisor import answers
from geard.supervisor.answers import Request

MAX_BODY_BYTES: Final = 64 * 1024
HERE: Final = Path(__file__).parent

log = logging.getLogger("geard.monitor")


def make_app(state: State) -> Flask:
    """The app on this state. Raises OSError when the file of a password or token cannot be read."""
    app = Flask("geard.monitor", static_folder=None, template_folder=str(HERE / "templates"))
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update(formats.FILTERS)
    app.jinja_env.globals["percent"] = formats.percent
    security = Security(app, state.start_line.monitor)
    site = Site(app, state, security)
    for rule, handler in (*site.routes().items(), *Api(state).routes().items()):
        app.add_url_rule(rule, handler.__name__, handler)
    for rule, handler in () if security.read_only else site.actions().items():
        app.add_url_rule(rule, handler.__name__, handler, methods=["POST"])
    app.register_error_handler(HTTPException, site.refused)
    app.register_error_handler(GeardError, site.failed)
    return app


class Site:
    """What is at which address."""

    def __init__(self, app: Flask, state: State, security: Security) -> None:
        self._app = app
        self._state = state
        self._security = security
        self._base_path = state.start_line.monitor.base_path
        self._static = Static(HERE / "static")
        self._live = Live(state, self._render_live)

    def routes(self) -> dict[str, Callable[..., Any]]:
        """What can be read."""
        return {
            "/": self.overview,
            "/functions": self.functions,
            "/function": self.function,
            "/running": self.running,
            "/failures": self.failures,
            "/processes": self.processes,
            "/servers": self.servers,
            "/letters": self.letters,
            "/schedules": self.schedules,
            "/stack": self.stack,
            "/events": self.events,
            "/static/<name>": self.static,
        }

    def actions(self) -> dict[str, Callable[..., Any]]:
        """What can be done."""
        return {
            "/reload": self.reload,
            "/replace": self.replace,
            "/drop": self.drop,
            "/letters/retry": self.retry_letters,
            "/letters/drop": self.drop_letters,
        }

    # --- pages ----------------------------------------------------------------------------------------------------

    def overview(self) -> str:
        return self._page("overview")

    def functions(self) -> str:
        return self._page("functions")

    def function(self) -> str:
        return self._page("function")

    def running(self) -> str:
        return self._page("running")

    def failures(self) -> str:
        return self._page("failures")

    def processes(self) -> str:
        return self._page("processes")

    def servers(self) -> str:
        return self._page("servers")

    def letters(self) -> str:
        return self._page("letters")

    def schedules(self) -> str:
        return self._page("schedules")

    def stack(self) -> str:
        daemon = next((each for each in self._state.daemons if each.name == request.args.get("daemon")), None)
        if daemon is None:
            abort(404, "no such daemon")
        asked = Request("", pid=number("pid"), handle=request.args.get("handle", ""))
        stack = self._state.recall(daemon, lambda source: source.stack, asked)
        return self._render("stack", {"stack": stack, "handle": asked.handle, "pid": asked.pid})

    def static(self, name: str) -> Response:
        return self._static.respond(name)

    def events(self) -> Response:
        try:
            stream = self._live.stream(request.args.get("view", "/"))
        except TooManyStreams:
            abort(503, "too many pages are open; this one can be loaded again by hand")
        return Response(stream, mimetype="text/event-stream", headers={"X-Accel-Buffering": "no"})

    def _page(self, name: str) -> str:
        return self._render(name, pages.PAGES[name](self._state, request.args))

    def _render_live(self, view: str) -> str:
        path, _, query_string = view.partition("?")
        name = path.removeprefix(self._base_path).strip("/") or "overview"
        if name not in pages.PAGES:
            return ""
        query = dict(parse_qsl(query_string))
        return self._render(name, pages.PAGES[name](self._state, query), live=True, query=query)

    def _render(
        self, name: str, told: Mapping[str, Any], *, live: bool = False, query: Mapping[str, str] | None = None
    ) -> str:
        state = self._state
        found = pages.found_problems(state)
        asked = dict(request.args) if query is None else query

        def link(page: str, /, **to: object) -> str:
            return pages.link(self._base_path, page, **to)

        def here(**changes: object) -> str:
            return pages.link(self._base_path, name, **{**asked, **changes})

        return self._app.jinja_env.get_template(f"{name}.html").render(
            told,
            layout="live.html" if live else "page.html",
            page=name,
            menu=pages.in_menu(state),
            link=link,
            here=here,
            static=lambda file: f"{self._base_path}/static/{self._static.versioned(file)}",
            base_path=self._base_path,
            problems=found,
            bad=sum(finding.level == "bad" for finding in found),
            daemons=state.daemons,
            own=state.own,
            several=len(state.daemons) > 1,
            token=self._security.form_token,
            read_only=self._security.read_only,
            version=__version__,
            said=asked.get("said", ""),
        )

    # --- actions --------------------------------------------------------------------------------------------------

    def reload(self) -> AnyResponse:
        answer = self._state.control.ask(Request(answers.RELOAD), RELOAD_SECONDS)
        return self._done("processes", answer.exit_code, answer.message)

    def replace(self) -> AnyResponse:
        answer = self._state.control.ask(Request(answers.REPLACE, pid=number("pid")))
        return self._done("processes", answer.exit_code, answer.message)

    def drop(self) -> AnyResponse:
        name, handle = request.form.get("server", ""), request.form.get("handle", "").strip()
        watch = next((each for each in self._state.watches if each.name == name), None)
        if watch is None:
            abort(404, "no such job server")
        try:
            watch.drop(handle)
        except GeardError as error:
            return self._done("servers", exits.FAILED, f"{handle} is not dropped: {error}", name=name)
        log.info("dropped %s from %s, as asked", formats.show(handle), name)
        return self._done("servers", exits.DONE, f"dropped {handle}", name=name)

    def retry_letters(self) -> AnyResponse:
        return self._do_letters("submitted again", self._state.letters.retry)

    def drop_letters(self) -> AnyResponse:
        return self._do_letters("dropped", self._state.letters.drop)

    def _do_letters(self, done: str, act: Callable[[Filter], int]) -> AnyResponse:
        """Those that a `key` of the page stands for, or a `function`; or one by its `id`."""
        key, function, number = (request.form.get(name, "") for name in ("key", "function", "id"))
        which = self._state.letters.meant(key) if key else Filter(function=function) if function else None
        if number.isdecimal() and len(number) < 19:
            which = Filter((int(number),))
        if which is None:
            abort(409 if key else 400, "they are gone" if key else "say which: a function or an id")
        try:
            count = act(which)
        except GeardError as failure:
            return self._done("letters", exits.FAILED, str(failure))
        log.info("%s: %d dead letters, as asked (%s)", done, count, formats.show(str(which)))
        self._state.letters.poll()
        return self._done("letters", exits.DONE, f"{done}: {count:,}")

    def _done(self, page: str, code: int, message: str, **query: object) -> AnyResponse:
        """Back to the page, with the outcome; as JSON for a program."""
        if request.accept_mimetypes.best_match(["text/html", "application/json"]) == "application/json":
            return as_json({"ok": code == exits.DONE, "message": message}, 200 if code == exits.DONE else 409)
        said = ("" if code == exits.DONE else "! ") + message[:2000]
        return redirect(pages.link(self._base_path, page, said=said, **query), 303)

    # --- errors ---------------------------------------------------------------------------------------------------

    def refused(self, error: HTTPException) -> AnyResponse:
        """What is not there, not allowed or not known."""
        if error.response is not None:
            return cast(Response, error.response)
        return self._error(error.code or 500, str(error.description))

    def failed(self, error: GeardError) -> AnyResponse:
        """The supervisor or a peer did not answer."""
        return self._error(503, str(error))

    def _error(self, code: int, text: str) -> AnyResponse:
        if request.path.startswith(("/api/", "/metrics", "/health/", "/events", "/static/")):
            return as_json({"error": text}, code)
        if not getattr(g, "known", False):
            return Response(f"{text}\n", code, mimetype="text/plain")
        return Response(self._render("error", {"code": code, "text": text}, query={}), code, mimetype="text/html")
