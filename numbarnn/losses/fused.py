"""Cross-entropies over classes as operations of the graph: fused kernels, and what these keep for the way back."""

from __future__ import annotations

import numpy as np

from ..graph import KernelOp, Spec
from ..jit import kernel_array
from ..kernels import crossentropy as kernels


def _rows(array):
    return array.reshape(-1, array.shape[-1])


def _infer_classes(predictions, targets, **attrs):
    return Spec(tuple(predictions.shape)[:-1], predictions.dtype)


def _forward_sparse(predictions, labels, *, save, from_logits, ignore, epsilon):
    shape = predictions.shape
    rows = kernel_array(_rows(predictions))
    labels = kernel_array(labels.astype(np.int64, copy=False)).reshape(-1)
    loss, norms = kernels.sparse_forward(rows, labels, from_logits, ignore, epsilon)
    return loss.reshape(shape[:-1]), (rows, labels, norms, shape) if save else None


def _pullback_sparse(saved, d_outputs, needs, *, from_logits, ignore, epsilon):
    rows, labels, norms, shape = saved
    d_loss = d_outputs[0]
    if d_loss is None or not needs[0]:
        return None, None
    d_loss = kernel_array(d_loss.astype(rows.dtype, copy=False)).reshape(-1)
    return kernels.sparse_backward(d_loss, rows, labels, from_logits, ignore, epsilon, norms).reshape(shape), None


def _forward_dense(predictions, targets, *, save, from_logits, epsilon):
    shape = predictions.shape
    rows = kernel_array(_rows(predictions))
    weights = kernel_array(_rows(targets).astype(rows.dtype, copy=False))
    loss, norms = kernels.dense_forward(rows, weights, from_logits, epsilon)
    return loss.reshape(shape[:-1]), (rows, weights, norms, shape) if save else None


def _pullback_dense(saved, d_outputs, needs, *, from_logits, epsilon):
    rows, weights, norms, shape = saved
    d_loss = d_outputs[0]
    if d_loss is None:
        return None, None
    d_loss = kernel_array(d_loss.astype(rows.dtype, copy=False)).reshape(-1)
    d_rows, d_weights = kernels.dense_backward(d_loss, rows, weights, from_logits, epsilon, norms, bool(needs[1]))
    return d_rows.reshape(shape), None if d_weights is None else d_weights.reshape(shape)


sparse_crossentropy = KernelOp("sparse_crossentropy", _forward_sparse, _infer_classes, _pullback_sparse)
dense_crossentropy = KernelOp("dense_crossentropy", _forward_dense, _infer_classes, _pullback_dense)
