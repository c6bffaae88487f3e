import torch

from modules.engine import fills


def hole_in(height: int, width: int, top: int, left: int, bottom: int, right: int) -> torch.Tensor:
    hole = torch.zeros(1, 1, height, width, dtype=torch.bool)
    hole[..., top:bottom, left:right] = True
    return hole


def test_a_slope_goes_on_through_the_hole_and_outside_nothing_changes() -> None:
    """A plane solves Laplace's equation: the membrane over a hole in it is the plane."""
    down, across = torch.meshgrid(torch.linspace(-1, 1, 60), torch.linspace(0, 0.5, 90), indexing="ij")
    plane = (down + across)[None, None].repeat(1, 3, 1, 1)
    hole = hole_in(60, 90, 13, 20, 44, 61)
    filled = fills.smooth(plane.masked_fill(hole, 7.0), hole)
    assert torch.equal(filled[(~hole).expand_as(filled)], plane[(~hole).expand_as(plane)])
    assert (filled - plane).abs().max() < 0.05


def test_holes_at_the_edge_and_of_odd_sizes_take_the_colour_beside_them() -> None:
    image = torch.full((1, 3, 37, 53), 0.25)
    hole = hole_in(37, 53, 0, 0, 37, 30)
    assert (fills.smooth(image.masked_fill(hole, -1.0), hole) - 0.25).abs().max() < 1e-3


def test_with_nothing_known_the_image_stays() -> None:
    image = torch.rand(1, 3, 9, 7)
    assert torch.equal(fills.smooth(image, torch.ones(1, 1, 9, 7, dtype=torch.bool)), image)
