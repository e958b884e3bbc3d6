r"""MultiPose's OKS-NMS threshold and rescoring, of a network that is trained already.

  pose-jax sweep run --config configs/multipose/synthetic.py \
    --sweep configs/sweeps/multipose_nms.py --study runs/sweeps/multipose_nms_trained
  pose-jax sweep run --eval-only runs/multipose_synthetic --boxes DETECTIONS.json \
    --sweep configs/sweeps/multipose_nms.py --study runs/sweeps/multipose_nms
  pose-jax sweep report --study runs/sweeps/multipose_nms

The second command is the one to use: it reads one network out in all these ways, seconds
each. Only on boxes of a detector is anything suppressed; 0.5 is the paper's.
"""

from pose_jax.sweep import Sweep, grid


def get_sweep() -> Sweep:
    return Sweep(
        space={
            "evaluation.nms": grid("oks", "soft_oks"),
            "evaluation.nms_threshold": grid(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            "method.rescoring": grid("pose", "box", "product"),
        },
        metric="AP",
        sampler="grid",
    )
