"""Options and report that the commands converting files of motion share."""

import sys

from lib.cli import number_within
from lib.data.convert.mocap.motion import LEAST_FPS, MOST_FPS


def add_motion_options(parser, out, files):
    """Add --out (by default the store `out`), --fps and --skip-bad; `files` is the noun for its help."""
    parser.add_argument("--out", default=out, help="default: %(default)s")
    parser.add_argument(
        "--fps",
        type=_frames_per_second,
        default=60.0,
        help=f"frames per second of the result, {LEAST_FPS} to {MOST_FPS} (default: 60)",
    )
    parser.add_argument("--skip-bad", action="store_true", help=f"leave out {files} that cannot be read")


def _frames_per_second(text):
    return number_within(text, lambda fps: LEAST_FPS <= fps <= MOST_FPS, f"a number from {LEAST_FPS} to {MOST_FPS}")


def report(done, options):
    """Print the result of a `lib.data.convert.motion_store.Conversion`."""
    for problem in done.skipped:
        print(f"skipped {problem}", file=sys.stderr)
    print(done.summary(options.out, options.fps))
