"""Classes of the named sets of scenes, in the order of their labels, with the colours in which they are shown."""

Colour = tuple[int, int, int]

CAMVID: dict[str, Colour] = {
    "sky": (128, 128, 128), "building": (128, 0, 0), "pole": (192, 192, 128), "road": (128, 64, 128),
    "pavement": (60, 40, 222), "tree": (128, 128, 0), "signsymbol": (192, 128, 128), "fence": (64, 64, 128),
    "car": (64, 0, 128), "pedestrian": (64, 64, 0), "bicyclist": (0, 128, 192),
}  # fmt: skip
CITYSCAPES: dict[str, Colour] = {
    "road": (128, 64, 128), "sidewalk": (244, 35, 232), "building": (70, 70, 70), "wall": (102, 102, 156),
    "fence": (190, 153, 153), "pole": (153, 153, 153), "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0), "vegetation": (107, 142, 35), "terrain": (152, 251, 152), "sky": (70, 130, 180),
    "person": (220, 20, 60), "rider": (255, 0, 0), "car": (0, 0, 142), "truck": (0, 0, 70), "bus": (0, 60, 100),
    "train": (0, 80, 100), "motorcycle": (0, 0, 230), "bicycle": (119, 11, 32),
}  # fmt: skip
STREETS: dict[str, Colour] = {
    "sky": (70, 130, 180), "building": (70, 70, 70), "road": (128, 64, 128), "pavement": (244, 35, 232),
    "tree": (107, 142, 35), "car": (0, 0, 142), "sign": (220, 220, 0),
}  # fmt: skip
