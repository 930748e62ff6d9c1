"""The one entry of `longgen`, `python -m longgen` and `sample.py`: spelling, errors and exit codes.

Knows how people type options and how a failure is told. Knows no command; imports no torch.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from longgen.errors import BadInput, RunFailed

# Spellings of other tools → ours. Underscores in option names are accepted everywhere.
ALIASES = {
    "--steps": "--num-inference-steps",
    "--sample-steps": "--num-inference-steps",
    "--frame-num": "--num-frames",
    "--video-length": "--num-frames",
    "--shift": "--flow-shift",
    "--sample-shift": "--flow-shift",
    "--sample-guide-scale": "--guidance-scale",
    "--cfg": "--guidance-scale",
    "--save-file": "--output",
    "--output-path": "--output",
    "--base-seed": "--seed",
    "--model-path": "--model",
    "--model-id": "--model",
    "--ckpt-dir": "--model",
    "--from-file": "--prompt-file",
    "--prompt-path": "--prompt-file",
    "--attention-backend": "--attention",
    "--cpu-offload": "--offload",
    "--methods": "--method",
}


def canonical(args: Sequence[str], command: str | None = None) -> list[str]:
    """Option names with hyphens and our own spelling; values are left alone.

    >>> canonical(["generate", "--frame_num=81", "--prompt", "--a_b"])
    ['generate', '--num-frames=81', '--prompt', '--a_b']
    """
    result: list[str] = [command] if command else []
    take_value = False
    own = {"--methods"} if (command or next(iter(args), None)) == "compare" else set()
    for arg in args:
        if take_value or not arg.startswith("--") or arg == "--":
            take_value = False
            result.append(arg)
            continue
        name, equals, value = arg.partition("=")
        name = name.replace("_", "-")
        name = name if name in own else ALIASES.get(name, name)
        take_value = name == "--prompt" and not equals
        result.append(name + equals + value)
    return result


def main(argv: Sequence[str] | None = None, command: str | None = None) -> None:
    """Run a command line and leave with 0 done, 1 failed, 2 bad input, 130 interrupted."""
    args = canonical(sys.argv[1:] if argv is None else argv, command)
    debug = "--debug" in args
    warnings.filterwarnings("ignore", message=".*xFormers.*|.*xformers.*")
    try:
        sys.exit(_dispatch([a for a in args if a != "--debug"]))
    except SystemExit:
        raise
    except KeyboardInterrupt:
        _tell("interrupted", 130)
    except BaseException as error:
        if debug:
            raise
        _tell(_line(error), 2 if isinstance(error, BadInput) else 1)


def _dispatch(args: list[str]) -> int:
    from longgen.cli.app import run

    return run(args)


def _line(error: BaseException) -> str:
    """One line for any failure; an unforeseen one says its type and how to see more."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, BadInput | RunFailed):
        return text
    return f"{type(error).__name__}: {text} (--debug shows where)"


def _tell(line: str, code: int) -> None:
    print(f"longgen: {'error: ' if code != 130 else ''}{line}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
