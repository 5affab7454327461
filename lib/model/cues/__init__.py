"""Cues: what a pretrained network or a classical method says about an image beside its colours.

| cue | values | estimators (`lib.model.cues.registry`) |
|---|---|---|
| flow | (2, H, W): x and y motion from a frame to the next one, px of the frame | `dis` (OpenCV, no weights), `raft_small`, `raft_large` (torchvision) |
| depth | (H, W): (inverse depth - median) / MAD over the frame; near is large | `depth_anything_v2_small`, ... (transformers) |

`tools/extract_cues.py` makes them once for a video and keeps them (`store.py`); `crop_cues` (`crop.py`) cuts what a
network sees of a person; `degrade.py` makes exact, rendered cues as wrong as estimated ones.

- Estimators see the whole frame, once for all of its people, at a working size of bounded cost: 512 px along the longer
  side for flow, 518 for depth.
- The last frame of a video has no next one: it repeats the flow before it. The flow of a video's only frame is zero.
- Relative depth models tell inverse depth up to a scale and a shift, which the normalisation takes away. Metric ones
  tell metres; their reciprocal is normalised the same, so that all depth estimators can replace each other.
- Depth Anything's licences: V1 and V2 Small Apache-2.0; V2 Base and Large CC-BY-NC-4.0, not for commercial use.
"""
