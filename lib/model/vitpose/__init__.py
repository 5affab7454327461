"""ViTPose (Xu et al., arXiv 2204.12484) as transformers builds it, untrained: the peer that MambaPose is measured against."""
