"""`geard completion`: the scripts that teach bash, zsh and fish to complete commands, options and function names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from geard import cli as root

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print the completion script of a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that makes SHELL complete geard's commands, options and function names.

    \b
    Examples:
      bash:  geard completion bash > ~/.local/share/bash-completion/completions/geard
      zsh:   geard completion zsh > "${fpath[1]}/_geard"
      fish:  geard completion fish > ~/.config/fish/completions/geard.fish
    """
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(root.cli, {}, "geard", "_GEARD_COMPLETE").source(), nl=False)
