"""Motion capture files (ASF/AMC and BVH) as positions of the project's 17 joints."""
