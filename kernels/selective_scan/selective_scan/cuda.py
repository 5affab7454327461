"""The scans compiled for CUDA (`csrc/scan_cuda.cu`)."""

def why_unavailable():
    return "todo"
