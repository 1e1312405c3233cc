"""What all experiments share: every key that a config can have, explained.

A duration is written in any unit: '90 epochs', '10_000 steps', '1e6 examples'
or '5%' of the run.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict


def op(name: str, **options: Any) -> dict[str, Any]:
  """Names a step of a pipeline and its options."""
  return {'name': name, **options}


def get_config() -> ml_collections.ConfigDict:
  """The defaults; an experiment fills in `model`, `data` and the recipe."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.duration = '10_000 steps'
  config.batch_size = 512  # over all devices
  config.accumulate = 1  # micro-batches of a step, one after the other
  config.dtype = 'bfloat16'  # of activations; parameters stay float32
  config.ema = 0.0  # decay of the average of the parameters; 0 for none

  # models.build; `num_classes` is taken from the data if it is not given.
  config.model = ml_collections.ConfigDict(
    {'name': 'vit', 'variant': 'B/16', 'scan': False}
  )
  config.objective = ml_collections.ConfigDict(
    {'name': 'classification', 'loss': 'softmax', 'label_smoothing': 0.0}
  )
  config.objective.mixup = 0.0  # alpha
  config.objective.cutmix = 0.0  # alpha
  config.optim = ml_collections.ConfigDict(
    {'name': 'adamw', 'learning_rate': 1e-3, 'clip_norm': 1.0}
  )
  config.optim.schedule = {'name': 'cosine', 'warmup': '5%'}
  config.optim.weight_decay = 0.0
  # Pretrained parameters, see vit_jax/pretrained; '' starts from scratch.
  config.init = ml_collections.ConfigDict({'params': ''})

  config.data = ml_collections.ConfigDict()
  # Where the training examples are, see vit_jax/data/sources.py:
  # 'tfds:cifar10:train[:98%]', '/my/images', '/my/labels.csv', 'digits:train'.
  config.data.train = ''
  # The part to keep away from training for evaluation sets that name no data,
  # unless the data has a validation or test split of its own.
  config.data.held_out = 0.1
  config.data.data_dir = config_dict.placeholder(str)  # of TFDS
  # On the host, image by image, uint8 to uint8: vit_jax/data/transforms.py.
  config.transforms = ()
  # The same when the model is judged or used.
  config.preprocess = ()
  # On the device, batch by batch, uint8 to uint8: vit_jax/ops/augment.py.
  config.augment = (op('flip'),)
  # (image / 255 - mean) / std
  config.normalize = ml_collections.ConfigDict(
    {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}
  )
  config.loader = ml_collections.ConfigDict({'num_workers': 0})
  config.loader.num_threads = config_dict.placeholder(int)  # None: all cores
  config.loader.on_bad_image = 'skip'  # or 'error'

  # Evaluation sets by name: the evaluator, its options, and its data, an
  # address like data.train; '' is what was held out.
  config.evals = ml_collections.ConfigDict()
  config.eval_batch_size = 512
  config.eval_every = '10%'
  config.log_every = '50 steps'
  config.checkpoint = ml_collections.ConfigDict({'every': '10%', 'keep': 2})
  config.checkpoint.best = ''  # keeps the best of, e.g., 'val/accuracy' too
  config.checkpoint.best_mode = 'max'

  # Split over the devices; -1 is "all that are left".
  config.mesh = ml_collections.ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1})
  config.wandb = ''  # project
  return config


def evaluation(data: str, *, loss: str = 'softmax') -> dict[str, Any]:
  """An evaluation set for a classifier trained with this loss."""
  return {'name': 'classification', 'data': data, 'loss': loss}


def inception(size: int) -> tuple[dict[str, Any], ...]:
  """Training: a random crop of 5 to 100 % of the area (arXiv:1409.4842)."""
  return (op('inception_crop', size=size),)
