import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.arrays.mirroring import cut_tile, mirrored
from napari_unet.arrays.tiles import moved_tile, plan_tiles, plan_tiles_around, split_tile
from napari_unet.errors import TileSizeError

PADDED = st.tuples(st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 6), st.integers(1, 20))
SHAPES = st.lists(st.integers(1, 150), min_size=1, max_size=2)


def times_written(shape, tiles):
    count = np.zeros(shape, int)
    for tile in tiles:
        count[tile.core] += 1
    return count


@settings(max_examples=100, deadline=None)
@given(shape=SHAPES, grid=PADDED)
def test_tiles_of_a_padded_network_cover_each_pixel_once_on_the_grid_with_a_full_halo(shape, grid):
    stride, halos, cores = grid
    halo, tile_px = halos * stride, (2 * halos + cores) * stride
    tiles = plan_tiles(shape, tile_px, halo, stride)

    assert (times_written(shape, tiles) == 1).all()
    for tile in tiles:
        for size, outer, core, local in zip(shape, tile.outer, tile.core, tile.local, strict=True):
            padded = -(-size // stride) * stride
            assert 0 <= outer.start < outer.stop <= padded
            assert outer.stop - outer.start <= tile_px
            assert outer.start % stride == 0
            assert (outer.stop - outer.start) % stride == 0
            assert outer.start == 0 or core.start - outer.start >= halo
            assert outer.stop == padded or outer.stop - core.stop >= halo
            assert core.start - outer.start == local.start
            assert core.stop - outer.start == local.stop
    assert len({tuple(part.stop - part.start for part in tile.outer) for tile in tiles}) == 1


@settings(max_examples=100, deadline=None)
@given(shape=SHAPES, grid=PADDED, seed=st.integers(0, 10**6))
def test_tiles_around_a_region_cover_each_pixel_once_on_the_grid_with_a_full_halo(
    shape, grid, seed
):
    stride, halos, cores = grid
    halo, tile_px = halos * stride, (2 * halos + cores) * stride
    random = np.random.default_rng(seed)
    region = [slice(*np.sort(random.choice(size + 1, 2, replace=False))) for size in shape]
    tiles = plan_tiles_around(shape, region, tile_px, halo, stride)

    assert (times_written(shape, tiles) == 1).all()
    for tile in tiles:
        for size, outer, core, local in zip(shape, tile.outer, tile.core, tile.local, strict=True):
            padded = -(-size // stride) * stride
            assert 0 <= outer.start < outer.stop <= padded
            assert outer.stop - outer.start <= max(tile_px, stride)
            assert outer.start % stride == 0
            assert (outer.stop - outer.start) % stride == 0
            assert outer.start == 0 or core.start - outer.start >= halo
            assert outer.stop == padded or outer.stop - core.stop >= halo
            assert core.start - outer.start == local.start
            assert core.stop - outer.start == local.stop


def test_a_region_as_large_as_a_core_is_one_tile():
    tiles = plan_tiles_around((1000, 1000), (slice(300, 500), slice(410, 590)), 250, 16, 8)
    inside = [t for t in tiles if 296 <= t.core[0].start < 500 and 408 <= t.core[1].start < 590]
    assert [t.core for t in inside] == [(slice(296, 504), slice(408, 592))]


def test_a_volume_is_covered_once_too():
    assert (times_written((19, 33, 50), plan_tiles((19, 33, 50), 24, 4, 4)) == 1).all()


def test_each_axis_may_have_a_grid_of_its_own():
    tiles = plan_tiles((7, 100), 48, (2, 16), (1, 8), smallest=(3, 16))
    assert (times_written((7, 100), tiles) == 1).all()
    assert all(t.outer[0] == slice(0, 7) for t in tiles), "an axis that fits is not padded"
    flat = plan_tiles((100,), 48, 16, 8, smallest=16)
    assert [t.outer[1:] for t in tiles] == [t.outer for t in flat]
    parts = split_tile(tiles[0], (7, 100), 24, (2, 8), (1, 8), smallest=(3, 8))
    assert (times_written(tuple(p.stop for p in tiles[0].core), parts) == 1).all()
    assert all(t.outer[0] == slice(0, 7) and t.outer[1].start % 8 == 0 for t in parts)


@settings(max_examples=100, deadline=None)
@given(
    shape=SHAPES,
    stride=st.sampled_from([2, 4, 8, 16]),
    margin=st.integers(1, 40),
    smallest=st.integers(1, 30),
    steps=st.integers(1, 8),
)
def test_tiles_of_an_unpadded_network_cover_each_pixel_once_with_sizes_it_can_take(
    shape, stride, margin, smallest, steps
):
    tile_px = smallest + steps * stride + 2 * margin
    smallest = min(smallest, 2 * stride)
    tiles = plan_tiles(shape, tile_px, 0, stride, margin, smallest)

    assert (times_written(shape, tiles) == 1).all()
    for tile in tiles:
        for outer, local in zip(tile.outer, tile.local, strict=True):
            output = outer.stop - outer.start - 2 * margin
            assert outer.start % stride == 0
            assert outer.stop - outer.start <= tile_px
            assert output >= smallest
            assert (output - smallest) % stride == 0
            assert 0 <= local.start < local.stop <= output


def test_the_2015_network_steps_by_384_pixels_not_by_the_388_it_gives_back():
    tiles = plan_tiles((388 + 384, 388), 572, 0, 16, margin=92, smallest=4)
    assert [tile.outer[0] for tile in tiles] == [slice(0, 572), slice(384, 384 + 572)]
    assert tiles[0].outer[1] == slice(0, 572)


def test_windows_are_split_evenly_instead_of_leaving_a_sliver():
    tiles = plan_tiles((208, 16), 200, 32, 16)
    assert [tile.outer[0] for tile in tiles] == [slice(0, 144), slice(64, 208)]
    assert [tile.core[0] for tile in tiles] == [slice(0, 96), slice(96, 208)]


def test_a_halo_off_the_grid_is_rounded_up():
    assert plan_tiles((300, 300), 128, 17, 16) == plan_tiles((300, 300), 128, 32, 16)


@pytest.mark.parametrize(
    ("tile_px", "halo", "margin", "smallest", "advice"),
    [
        pytest.param(200, 96, 0, 16, "208", id="two halos fill the tile"),
        pytest.param(15, 0, 0, 16, "16", id="smaller than the stride"),
        pytest.param(203, 0, 92, 4, "204", id="smaller than the margins"),
    ],
)
def test_a_tile_that_is_too_small_is_told_with_the_least_that_works(
    tile_px, halo, margin, smallest, advice
):
    with pytest.raises(TileSizeError, match=rf"{tile_px} px.* {advice} "):
        plan_tiles((900, 900), tile_px, halo, 16, margin, smallest)
    plan_tiles((900, 900), int(advice), halo, 16, margin, smallest)


def test_a_tile_as_large_as_the_image_needs_no_room_for_a_halo():
    (tile,) = plan_tiles((40, 64), 64, 96, 16)
    assert tile.outer == (slice(0, 48), slice(0, 64))


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_mirroring_is_that_of_numpy_for_any_size_and_margin(size):
    axis = np.arange(size)
    expected = np.pad(axis, (25, 31), mode="reflect")
    assert (mirrored(-25, size + 31, size) == expected).all()


def test_a_tile_is_cut_as_from_the_mirrored_image():
    plane = np.arange(2 * 13 * 9).reshape(2, 13, 9)
    padded = np.pad(plane, ((0, 0), (6, 40), (6, 40)), mode="reflect")
    for tile in plan_tiles((13, 9), 18, 0, 4, margin=6, smallest=2):
        assert (cut_tile(plane, tile, margin=6) == padded[(slice(None), *tile.outer)]).all()


def test_a_tile_inside_the_image_is_a_view():
    plane = np.zeros((1, 64, 64))
    tile = plan_tiles((64, 64), 32, 8, 8)[0]
    assert np.shares_memory(cut_tile(plane, tile), plane)


@pytest.mark.parametrize(
    ("shape", "tile_px", "grid"),
    [
        ((203, 150), 112, (24, 8)),
        ((40, 301), 137, (24, 8)),
        ((77, 50), 90, (0, 4, 20, 4)),
        ((19, 33, 50), 24, (4, 4)),
    ],
)
def test_a_tile_is_split_into_tiles_that_cover_its_core_once(shape, tile_px, grid):
    halo, stride, *margins = grid
    tiles = plan_tiles(shape, tile_px, *grid)
    margin = margins[0] if margins else 0
    smaller_px = max(2 * halo, 2 * margin) + 2 * stride
    smaller = [part for tile in tiles for part in split_tile(tile, shape, smaller_px, *grid)]
    assert len(smaller) > len(tiles)
    assert (times_written(shape, smaller) == 1).all()
    for tile in smaller:
        for outer, core, local, size in zip(tile.outer, tile.core, tile.local, shape, strict=True):
            padded = (
                max(part.outer[0].stop for part in tiles) if margin else -(-size // stride) * stride
            )
            assert outer.start % stride == 0
            assert outer.stop - outer.start <= smaller_px
            assert core.start - outer.start == local.start
            assert core.stop - core.start == local.stop - local.start
            if not margin:
                assert core.start - outer.start >= min(halo, core.start)
                assert outer.stop - core.stop >= min(halo, padded - core.stop)
                assert outer.stop <= padded


def test_a_moved_tile_lies_across_a_border_and_gives_a_part_of_the_core():
    tiles = plan_tiles((203, 150), 112, 24, 8)
    for tile in tiles:
        moved = moved_tile(tile, (203, 150), 24, 8)
        assert moved.outer != tile.outer
        for old, new in zip(tile.core, moved.core, strict=True):
            assert old.start <= new.start < new.stop <= old.stop
        for outer, local, size in zip(moved.outer, moved.local, (208, 152), strict=True):
            assert outer.start % 8 == 0
            assert 0 <= outer.start < outer.stop <= size
            assert local.start >= min(24, outer.start)


@pytest.mark.parametrize("shape", [(2, 40, 50), (2, 3, 4)])
def test_only_the_box_of_a_tile_is_read(shape):
    class OnDisk:
        def __init__(self):
            self.array, self.shape = np.random.default_rng(0).random(shape), shape

        def __getitem__(self, index):
            assert all(isinstance(part, slice) for part in index)
            return self.array[index].tolist()

    lazy = OnDisk()
    for tile in plan_tiles(shape[1:], 32, 0, 4, margin=6, smallest=2):
        assert (cut_tile(lazy, tile, margin=6) == cut_tile(lazy.array, tile, margin=6)).all()
