"""What the commands that convert files of motion share."""

import sys

from lib.cli import positive_number


def add_motion_options(parser, out, files):
    """Adds --out (by default the store `out`), --fps and --skip-bad, which is about `files`."""
    parser.add_argument("--out", default=out, help="default: %(default)s")
    parser.add_argument(
        "--fps", type=positive_number, default=60.0, help="frames per second of the result (default: 60)"
    )
    parser.add_argument("--skip-bad", action="store_true", help=f"leave out {files} that cannot be read")


def report(done, options):
    """Prints what became of a `lib.data.motion_store.Conversion`."""
    for problem in done.skipped:
        print(f"skipped {problem}", file=sys.stderr)
    print(done.summary(options.out, options.fps))
