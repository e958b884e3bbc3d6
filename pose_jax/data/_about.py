"""What the TFDS builders of `store` say of each data set: origin, licence, citation."""

ABOUT: dict[str, dict[str, str]] = {
    "coco": {
        "description": "Common Objects in Context, person keypoints: photographs from "
        "Flickr, and of the people in them boxes, 17 keypoints, areas and crowd regions.",
        "homepage": "https://cocodataset.org",
        "license": "Annotations: CC BY 4.0, COCO Consortium. Each image: the Flickr "
        "licence that the annotation file names for it.",
        "citation": """@inproceedings{lin2014coco,
  title = {Microsoft {COCO}: Common Objects in Context},
  author = {Lin, Tsung-Yi and Maire, Michael and Belongie, Serge and Hays, James and
    Perona, Pietro and Ramanan, Deva and Doll{\\'a}r, Piotr and Zitnick, C. Lawrence},
  booktitle = {ECCV}, year = {2014}}""",
    },
    "mpii": {
        "description": "MPII Human Pose: frames of videos of everyday activities, 16 "
        "joints of each person, and head boxes.",
        "homepage": "http://human-pose.mpi-inf.mpg.de",
        "license": "Simplified BSD.",
        "citation": """@inproceedings{andriluka2014mpii,
  title = {{2D} Human Pose Estimation: New Benchmark and State of the Art Analysis},
  author = {Andriluka, Mykhaylo and Pishchulin, Leonid and Gehler, Peter and
    Schiele, Bernt},
  booktitle = {CVPR}, year = {2014}}""",
    },
    "lsp": {
        "description": "Leeds Sports Pose: 2000 photographs of people at sports, scaled "
        "to about 150 pixels of height, 14 joints of one person each.",
        "homepage": "http://sam.johnson.io/research/lsp.html",
        "license": "None is stated; its makers ask to be cited.",
        "citation": """@inproceedings{johnson2010lsp,
  title = {Clustered Pose and Nonlinear Appearance Models for Human Pose Estimation},
  author = {Johnson, Sam and Everingham, Mark},
  booktitle = {BMVC}, year = {2010}}""",
    },
    "lsp_extended": {
        "description": "Leeds Sports Pose Extended: 10000 photographs of people at "
        "sports, 14 joints of one person each, annotated by the crowd.",
        "homepage": "http://sam.johnson.io/research/lspet.html",
        "license": "None is stated; its makers ask to be cited.",
        "citation": """@inproceedings{johnson2011lspet,
  title = {Learning Effective Human Pose Estimation from Inaccurate Annotation},
  author = {Johnson, Sam and Everingham, Mark},
  booktitle = {CVPR}, year = {2011}}""",
    },
    "flic": {
        "description": "Frames Labeled In Cinema: 5003 frames of films, 11 keypoints of "
        "the upper body of one person each.",
        "homepage": "https://bensapp.github.io/flic-dataset.html",
        "license": "None is stated; the frames are of commercial films.",
        "citation": """@inproceedings{sapp2013modec,
  title = {{MODEC}: Multimodal Decomposable Models for Human Pose Estimation},
  author = {Sapp, Ben and Taskar, Ben},
  booktitle = {CVPR}, year = {2013}}""",
    },
    "synthetic": {
        "description": "Articulated people drawn by pose_jax (`pose-jax data synth`), "
        "labelled exactly, in COCO's form.",
        "license": "Apache-2.0, as pose_jax.",
    },
}
"""Arguments of tfds.core.DatasetInfo by data set; others get a line of their name."""
