r"""OKS-NMS threshold and rescoring of MultiPose, for a trained network.

  pose-jax sweep run --config configs/multipose/synthetic.py \
    --sweep configs/sweeps/multipose_nms.py --study runs/sweeps/multipose_nms_trained
  pose-jax sweep run --eval-only runs/multipose_synthetic --boxes DETECTIONS.json \
    --sweep configs/sweeps/multipose_nms.py --study runs/sweeps/multipose_nms
  pose-jax sweep report --study runs/sweeps/multipose_nms

The second command is recommended: it evaluates one network with all settings, in seconds
each. NMS is applied to detected boxes only; the threshold of the paper is 0.5.
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
