"""Coarser meshes: vertices near each other merged, and copies of vertices so that no triangle is of two parts."""

import numpy as np


def merge_near(places, faces, groups, cells):
    """Return a mesh with less detail: numbers (n,) of the vertices kept, and faces (m, 3) int32 of their positions in it.

    Vertices of one group within one cell of a grid are replaced by the one nearest to their mean.

    Args:
        places: (V, 3) m.
        faces: (T, 3); those that lose a corner are left out.
        groups: (V,) int.
        cells: (V,) m, side of the cells around a vertex, the same in a group.
    """
    keys = np.column_stack([np.floor(places / cells[:, None]).astype(np.int64), groups])
    _, cluster = np.unique(keys, axis=0, return_inverse=True)
    cluster = cluster.reshape(-1)
    members = np.bincount(cluster)
    means = np.stack([np.bincount(cluster, axis) for axis in places.T], axis=1) / members[:, None]
    order = np.lexsort((np.linalg.norm(places - means[cluster], axis=1), cluster))
    kept = order[np.searchsorted(cluster[order], np.arange(len(members)))]
    merged = cluster[faces]
    whole = (merged != np.roll(merged, 1, axis=1)).all(1)
    return kept, merged[whole].astype(np.int32)


def cut_apart(faces, labels):
    """Return a mesh whose triangles have one label each, that of their first vertex.

    Args:
        faces: (T, 3) of a mesh of V vertices.
        labels: (V,) uint8.

    Returns:
        copied (n,): the vertex of which each of the new ones is a copy; faces (T, 3) int32; labels (n,).
    """
    of_face = labels[faces[:, :1]]
    pairs, corners = np.unique(faces.astype(np.int64) * 256 + of_face, return_inverse=True)
    return pairs // 256, corners.reshape(faces.shape).astype(np.int32), (pairs % 256).astype(np.uint8)
