"""Conversion of motion capture files (ASF/AMC and BVH) to positions of the project's 17 joints."""
