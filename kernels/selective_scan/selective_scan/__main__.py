"""`python -m selective_scan`: which implementations this installation has, and how to get the missing ones."""

from pathlib import Path

from selective_scan import IMPLEMENTATIONS, default_implementation, why_unavailable

INSTALL = f"pip install --force-reinstall --no-deps -e {Path(__file__).resolve().parent.parent}"


def main():
    print(f"default for float32 tensors on the CPU: {default_implementation()}")
    for name in IMPLEMENTATIONS:
        reason = why_unavailable(name)
        print(f"{name}: {f'not available: {reason}' if reason else 'available'}")
        if reason:
            print(f"    install a C++ compiler (apt-get install g++), then: {INSTALL}")


main()
