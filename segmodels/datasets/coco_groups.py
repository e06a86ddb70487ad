"""The 53 stuff classes of COCO panoptic in the 15 groups that U2Seg scores.

The grouping is COCO's own super-categories (U2Seg sec. 4.1).
"""

from segmodels.formats.coco_json import Category

# Above 200, COCO's largest category id, so that groups and things never share an id.
FIRST_GROUP_ID = 201

COCO15_GROUPS: dict[str, tuple[int, ...]] = {
    "textile": (92, 93, 109, 141, 168, 200),
    "building": (95, 128, 151, 166, 197),
    "raw-material": (100, 195),
    "furniture-stuff": (107, 112, 130, 133, 156, 161, 188, 189),
    "floor": (118, 190),
    "plant": (119, 184, 193),
    "food-stuff": (122, 196),
    "ground": (125, 144, 145, 147, 149, 154, 159, 191, 194),
    "structural": (138, 185),
    "water": (148, 155, 178),
    "wall": (171, 175, 176, 177, 199),
    "window": (180, 181),
    "ceiling": (186,),
    "sky": (187,),
    "solid": (192, 198),
}

GROUP_CATEGORIES = tuple(
    Category(FIRST_GROUP_ID + index, name, isthing=False, supercategory=name)
    for index, name in enumerate(COCO15_GROUPS)
)

GROUP_OF_CATEGORY: dict[int, Category] = {
    category_id: group
    for group, ids in zip(GROUP_CATEGORIES, COCO15_GROUPS.values(), strict=True)
    for category_id in ids
}
