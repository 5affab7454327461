"""Writers of poses for other programs: arrays (.npz), tables (JSON, CSV) and motion (BVH)."""
