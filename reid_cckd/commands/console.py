"""What all commands share: a user's mistake is a paragraph, never a traceback."""

from __future__ import annotations

import argparse
import os
import re
import select
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields

from reid_cckd.config import Config
from reid_cckd.engine import Interrupted
from reid_cckd.errors import UserError, did_you_mean
from reid_cckd.files import is_full_disk

KEY = re.compile(rf"({'|'.join(section.name for section in fields(Config))})\.[\w.]+=")


def run(
    command: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    *,
    together: bool = False,
) -> int:
    """Parse, run, and turn what went wrong into a message and an exit code.

    ``together``: the processes of torchrun divide the work of this command; others are refused where there are several.
    """
    try:
        arguments = parse(parser, sys.argv[1:] if argv is None else argv)
        if not together:
            _refuse_several(parser.prog)
        command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise  # it was another pipe, that to a worker which has died for one
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to be written at the end
        return 141
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        return stop.exit_code
    except OSError as error:
        if not is_full_disk(error):
            raise
        where = f" to write {error.filename}" if error.filename else ""
        print(f"\nerror: No space left{where}. Free space and give the same command again.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    return 0


def run_action(
    name: str, actions: Mapping[str, Callable[[Sequence[str]], int]], examples: str, argv: Sequence[str] | None
) -> int:
    """Run the action of a command that its first argument names; where it names none say which there are."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in actions:
        return actions[arguments[0]](arguments[1:])
    usage = f"usage: reid-cckd {name} {{{','.join(actions)}}} ...\n\nexamples:\n{examples}"
    if arguments[:1] in (["-h"], ["--help"]):
        print(usage)
        return 0
    wrong = f"there is no {arguments[0]!r}.{did_you_mean(arguments[0], actions)}" if arguments else "say what to do."
    print(f"reid-cckd {name}: {wrong}\n\n{usage}", file=sys.stderr)
    return 2


def _refuse_several(name: str) -> None:
    """Each would do all of the work, and write the same files."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started > 1:
        raise UserError(
            f"{name} is the work of one process, and {started} were started (WORLD_SIZE). Start it without torchrun; "
            f"reid-cckd train and reid-cckd test divide theirs."
        )


def _nobody_reads() -> bool:
    """Whether stdout leads to somebody who has seen enough, `head` for one."""
    watch = select.poll()
    watch.register(sys.stdout, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0))


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments; section.key=value may stand anywhere, also behind an option that takes several values."""
    keys = [text for text in argv if KEY.match(text)]
    arguments = parser.parse_intermixed_args([text for text in argv if text not in keys])
    if keys and not hasattr(arguments, "overrides"):
        parser.error(f"unrecognized arguments: {' '.join(keys)}")
    if keys:
        given = {*keys, *arguments.overrides}
        arguments.overrides = [text for text in argv if text in given]
    return arguments


def take_overrides(parser: argparse.ArgumentParser, text: str) -> None:
    """Let a command take key=value arguments, as ``overrides``; ``text`` is their help."""
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value", help=text)


def make_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser whose help ends with examples."""
    return argparse.ArgumentParser(
        prog=f"reid-cckd {name}",
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
