"""MotionAGFormer (arXiv 2310.16288): a peer that PoseMamba is measured against."""
