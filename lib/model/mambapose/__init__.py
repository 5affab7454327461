"""MambaPose: keypoints of a person from an image, with optical flow and depth as optional cues.

The parts, in the order that an image passes them: `stem`, `fusion` of the cues, the encoder (`two_stage` or `vim`),
`heads`; `network` puts them together. It shares its name, not its design, with a paper of 2024 (Sensors 24(24):8158).
"""
