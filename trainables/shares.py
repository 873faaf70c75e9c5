"""Named tables of the share of connections that each layer keeps in the source."""

_CONVOLUTIONS = ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"]
_ALEXNET = {f"conv{i}": share for i, share in enumerate((0.84, 0.38, 0.35, 0.37, 0.37), start=1)}
_VGG16 = {
    f"conv{name}": share / 100
    for name, share in zip(_CONVOLUTIONS, (58, 22, 34, 36, 53, 24, 42, 32, 27, 34, 35, 29, 36), strict=True)
}

SHARES: dict[str, dict[str, float]] = {
    "han-alexnet": {**_ALEXNET, "fc6": 0.09, "fc7": 0.09, "fc8": 0.25},
    "han-vgg16": {**_VGG16, "fc6": 0.04, "fc7": 0.04, "fc8": 0.23},
    "paper-alexnet": {**_ALEXNET, "fc6": 0.0737, "fc7": 0.158, "fc8": 0.25},
    "paper-vgg16": {**_VGG16, "fc6": 0.0735, "fc7": 0.04, "fc8": 0.23},
    "paper-vgg16-flow": {**_VGG16, "fc6": 0.0695, "fc7": 0.04, "fc8": 0.23},
}
"""``han-...`` are those of Han et al. 2015, tables 4 and 5. ``paper-...`` are the rates that Liu et al. 2017 print.

The paper prints no table of shares, only rates: Hybrid-TransferNet at 63.8 % (Indoor67) and 63.6 % (Flower102), which
is FC7 and output dense and 9.1 % kept of all below; 78.2 % and 78.5 % for the two VGG-16; Sparse-SourceNet at 88.0 %.
Its Tables 2 and 3 leave 784K connections in AlexNet's convolutions after pruning in the target, so they had at least
these before: Han's shares leave 865K, while scaling all layers alike would leave 740K. So convolutions keep Han's
shares, and FC6 takes up the difference. FC7 is set so that the source net comes to 88.0 %, with Han's share of FC8; of
VGG-16's source nets the paper is silent, and FC7 and FC8 keep Han's shares.
"""
