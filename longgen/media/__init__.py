"""Reading and writing video. Knows pixels and files, nothing of models. Imports PyAV only when a file is touched."""

from longgen.media.read import VideoInfo, VideoReader, open_video
from longgen.media.write import Target, VideoWriter, check_target

__all__ = ["Target", "VideoInfo", "VideoReader", "VideoWriter", "check_target", "open_video"]
