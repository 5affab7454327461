"""MambaPose: joints of a person, in the image or in space, from a crop of an image and optional cues."""

from einops import rearrange

from lib.errors import UserError, nearest
from lib.model.hub import Pretrained
from lib.model.mambapose.block import Block
from lib.model.mambapose.fusion import FUSIONS
from lib.model.mambapose.heads import HeatmapHead, PoseHead
from lib.model.mambapose.inputs import refuse_wrong_images
from lib.model.mambapose.sizes import ENCODERS, HEADS, SIZES, STREAMS
from lib.model.mambapose.two_stage import TwoStage
from lib.model.mambapose.vim import Vim

_ENCODERS: dict = dict(zip(ENCODERS, (TwoStage, Vim)))


class MambaPose(Pretrained):
    """State space encoder over image tokens, with heads for heatmaps and for joints in space.

    Args:
        size: a key of `lib.model.mambapose.sizes.SIZES`.
        head: "2d" gives heatmaps, "3d" joints in space, found by way of heatmaps.
        joints: J.
        streams: what it sees: "rgb", and "flow" and "depth" as cues.
        fusion: "gated": a cue may be missing; "early": all streams are channels of one image.
        encoder: "two_stage" (convolutions, then four-directional scans at strides 8 and 16) or "vim" (Vision Mamba).
        frames: T; above 1 the batch is (B * T), clip after clip, and a block mixes the frames of a clip, both ways.
        drop_path: stochastic depth of the last block; None: that of the size.
        recompute: in training, compute activations within blocks again in the backward pass instead of keeping them.

    Raises:
        UserError: an argument has a value that there is not.
    """

    def __init__(
        self,
        size="small",
        head="2d",
        joints=17,
        streams=STREAMS,
        fusion="gated",
        encoder="two_stage",
        frames=1,
        drop_path=None,
        recompute=True,
    ):
        super().__init__()
        _refuse_unknown(size=(size, SIZES), head=(head, HEADS), fusion=(fusion, FUSIONS), encoder=(encoder, ENCODERS))
        for stream in streams:
            _refuse_unknown(streams=(stream, STREAMS))
        if "rgb" not in streams:
            raise UserError("streams: lacks rgb, which is always needed")
        self.streams = tuple(stream for stream in STREAMS if stream in streams)
        self.frames = frames
        if drop_path is None:
            drop_path = SIZES[size].drop_path

        encoder_class = _ENCODERS[encoder]
        channels = encoder_class.channels(SIZES[size])
        self.fusion = FUSIONS[fusion](encoder_class.Stem, channels[0], self.streams, recompute)
        self.encoder = encoder_class(SIZES[size], drop_path, recompute)
        self.time = Block(channels[-1], drop_path, recompute) if frames > 1 else None
        self.heatmaps = HeatmapHead(channels, joints)
        self.pose = PoseHead(channels, joints, frames, width=channels[0]) if head == "3d" else None

    def forward(self, rgb, flow=None, depth=None, both=False):
        """Return logits of heatmaps (B, J, H / 4, W / 4), or of head "3d" joints (B, J, 3), m, relative to the root.

        Args:
            rgb: (B, 3, H, W) in [0, 1]; 16 divides H and W.
            flow: (B, 2, H, W) px, x then y, to the next frame; None: missing.
            depth: (B, 1, H, W), the normalised depth of the crop; None: missing.
            both: of head "3d", return the heatmaps too: joints and heatmaps.

        Raises:
            UserError: an input has another shape, is missing where the fusion needs it, or is none of the streams.
        """
        heatmaps, pose = self.estimate(rgb, flow, depth)
        if pose is None:
            return heatmaps
        return (pose, heatmaps) if both else pose

    def estimate(self, rgb, flow=None, depth=None):
        """Return heatmaps and pose, see `forward`; the pose is None of head "2d"."""
        refuse_wrong_images(self.streams, rgb=rgb, flow=flow, depth=depth)
        if len(rgb) % self.frames:
            raise UserError(f"rgb: {len(rgb)} images are no whole clips of {self.frames} frames")
        shown = self.fusion.draw_cues(len(rgb))
        *fine, coarse = self.encoder(self.fusion(rgb, flow, depth, shown))
        features = (*fine, self._mixed_over_time(coarse))
        heatmaps = self.heatmaps(features)
        if self.pose is None:
            return heatmaps, None
        return heatmaps, self.pose(features, heatmaps, depth, None if shown is None else shown[:, 1])

    def _mixed_over_time(self, x):
        """x (B * T, h, w, C): a block over the grid of T frames and h * w places, whose scans run through both."""
        if self.time is None:
            return x
        height = x.shape[1]
        x = self.time(rearrange(x, "(b t) h w c -> b t (h w) c", t=self.frames))
        return rearrange(x, "b t (h w) c -> (b t) h w c", h=height)


def _refuse_unknown(**choices):
    for name, (value, known) in choices.items():
        if value not in known:
            raise UserError(f"{name}: {value!r} is unknown{nearest(value, known)}; there are {', '.join(known)}")
