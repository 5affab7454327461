"""Making a cue of every frame of a video."""

import torch

from lib.model.cues.estimator import with_last
from lib.model.cues.writer import CueWriter


def extract(folder, video, estimator, source, frame, progress):
    """Make one cue of a video in a store, or go on where an earlier run stopped.

    Args:
        folder: the store's.
        video: what identifies it, `lib.model.cues.store.identify`.
        estimator: `Estimator`.
        source: `lib.video.io.source.VideoSource`, perhaps of smaller images than the video's.
        frame: (width, height) px of the video's own upright frames, which flow is given in.
        progress: wraps what is gone through, as `lib.cli.progress_bar` does.

    Raises:
        UserError: maps are not finite, or the store cannot be written.
    """
    shape = (*estimator.channels, source.height, source.width)
    scale = torch.tensor([frame[0] / source.width, frame[1] / source.height], device=estimator.device)[:, None, None]
    with CueWriter(folder, estimator.cue, video, frame, shape, estimator.settings()) as writer:

        def estimate(images, ends=False):
            maps = estimator(images, writer.frames)
            if estimator.cue == "flow":
                maps = maps * scale
            if ends and estimator.ahead:
                maps = with_last(maps, None if writer.last is None else torch.tensor(writer.last).to(maps))
            writer.add(maps.cpu().numpy())

        waiting = []
        left = (image for number, _, image in source if number >= writer.frames)
        for image in progress(left, estimator.cue, total=source.frames, initial=writer.frames, unit="frame"):
            waiting.append(image)
            if len(waiting) == estimator.batch + estimator.ahead:
                estimate(waiting)
                waiting = waiting[estimator.batch :]
        if waiting:
            estimate(waiting, ends=True)
        writer.finish()
