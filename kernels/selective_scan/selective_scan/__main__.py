"""`python -m selective_scan`: list the implementations of this installation and how to get the missing ones."""

from selective_scan import IMPLEMENTATIONS, cpu, default_implementation, how_to_get, why_unavailable


def main():
    for name in IMPLEMENTATIONS:
        reason = why_unavailable(name)
        print(f"{name}: not available: {reason}" if reason else f"{name}: available")
        if name == "cpu" and not reason and (remark := cpu.remark()):
            print(f"    {remark}")
        if reason and (fix := how_to_get(name)):
            print(f"    {fix}")
    print(f"default for float32 tensors on the CPU: {default_implementation()}")


main()
