"""What all experiments share: every key that a config can have, explained.

A duration is written in any unit: '90 epochs', '10_000 steps', '1e6 examples'
or '5%' of the run.
"""

from typing import Any, NamedTuple

import ml_collections
from ml_collections import config_dict

from vit_jax import trained

# Of the three channels, in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def op(name: str, **options: Any) -> dict[str, Any]:
  """Names a step of a pipeline and its options."""
  return {'name': name, **options}


def get_config() -> ml_collections.ConfigDict:
  """The defaults; an experiment fills in `model`, `data` and the recipe."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.duration = '10_000 steps'
  config.batch_size = 512  # over all devices
  # Micro-batches of a step, one after the other: a step of 4 sees the same
  # images and takes about a quarter of the memory for activations. -1 (as in
  # `mesh`: what is needed) compiles the step with 1, 2, 4, ... and takes the
  # first that fits; the run keeps it when it is resumed. It is a number, so
  # that it stays one on the command line.
  config.accumulate = 1
  # Of a device, for accumulate=-1; None is what the device says. CPUs do not.
  config.memory_gib = config_dict.placeholder(float)
  config.dtype = 'bfloat16'  # of activations; parameters stay float32
  config.ema = 0.0  # decay of the average of the parameters; 0 for none
  _set_learning(config)
  _set_data(config)
  _set_reports(config)
  # Split over the devices; -1 is "all that are left".
  config.mesh = ml_collections.ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1})
  return config


def _set_learning(config: ml_collections.ConfigDict) -> None:
  # models.build; `num_classes` is taken from the data if it is not given. For
  # `scan` and `remat` see vit_jax/models/scan.py.
  config.model = ml_collections.ConfigDict(
    {'name': 'vit', 'variant': 'B/16', 'scan': False}
  )
  config.objective = ml_collections.ConfigDict(
    {'name': 'classification', 'loss': 'softmax', 'label_smoothing': 0.0}
  )
  config.objective.mixup = 0.0  # alpha
  config.objective.cutmix = 0.0  # alpha
  # optim.build, which also takes `sam` and `schedule_free`.
  config.optim = ml_collections.ConfigDict(
    {'name': 'adamw', 'learning_rate': 1e-3, 'clip_norm': 1.0}
  )
  config.optim.schedule = {'name': 'cosine', 'warmup': '5%'}
  config.optim.weight_decay = 0.0  # relative to the learning rate
  # A checkpoint to start from, see vit_jax/pretrained; '' for none.
  config.init = ml_collections.ConfigDict({'params': ''})
  # A run to go on from, with another duration and schedule: 'runs/other', or
  # 'runs/other@1000' for the checkpoint of that step; '' for none.
  config.init.run = ''


def _set_data(config: ml_collections.ConfigDict) -> None:
  config.data = ml_collections.ConfigDict()
  # Where the training examples are, see vit_jax/data/sources.py:
  # 'tfds:cifar10:train[:98%]', '/my/images', '/my/labels.csv', 'digits:train'.
  config.data.train = ''
  # The part to keep away from training for evaluation sets that name no data,
  # unless the data has a validation or test split of its own.
  config.data.held_out = 0.1
  config.data.repeats = 1  # of an image in a batch, each cropped anew
  config.data.data_dir = config_dict.placeholder(str)  # of TFDS
  # On the host, image by image, uint8 to uint8: vit_jax/data/transforms.py.
  config.transforms = ()
  # The same when the model is judged or used.
  config.preprocess = ()
  # On the device, batch by batch: vit_jax/ops/augment.py.
  config.augment = (op('flip'),)
  # (image / 255 - mean) / std
  config.normalize = ml_collections.ConfigDict(
    {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}
  )
  config.loader = ml_collections.ConfigDict({'num_workers': 0})
  config.loader.num_threads = config_dict.placeholder(int)  # None: all cores
  config.loader.timeout = 300.0  # seconds without a batch: a disk hangs
  config.loader.on_bad_image = 'skip'  # or 'error'
  # For training, whether a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size
  # if the crop stays large enough: for photographs of more than 1,000 pixels.
  config.loader.scaled_decoding = False
  # Whether all images are transformed once and kept on the devices: for small
  # ones, and `transforms` that are not random.
  config.loader.on_device = False


def _set_reports(config: ml_collections.ConfigDict) -> None:
  # Evaluation sets by name: the `name` of the evaluator, its options, and its
  # `data`, an address like data.train; '' is what was held out. For few_shot
  # and knn also `train`, where '' is data.train. With a `preprocess` of its
  # own, it takes the place of that above; an `optional` set that is not on this
  # machine is left out. vit_jax/evaluators/suites.py has those of papers.
  config.evals = ml_collections.ConfigDict()
  config.eval_batch_size = 512
  config.eval_every = '10%'
  config.log_every = '50 steps'
  config.checkpoint = ml_collections.ConfigDict({'every': '10%', 'keep': 2})
  config.checkpoint.best = ''  # keeps the best of, e.g., 'val/accuracy' too
  config.checkpoint.best_mode = 'max'
  # If the loss is not finite: 'stop'; 'skip' that update, and count it; or
  # 'rollback' to the newest checkpoint and on with other data: divergence.py.
  config.on_divergence = 'stop'
  config.wandb = ''  # project
  config.watch = ''  # 'histograms,batch,attention': watch.py


def evaluation(data: str, *, loss: str = 'softmax') -> dict[str, Any]:
  """An evaluation set for a classifier trained with this loss."""
  return {'name': 'classification', 'data': data, 'loss': loss}


def parse(arg: str | None, *names: str, **defaults: Any) -> dict[str, Any]:
  """Reads what follows the colon of --config: 'B_16,cifar10,size=224'.

  Args:
    arg: values in the order of `names`, then `key=value` for any of them or
      of `defaults`.
    *names: of the values that have no default.
    **defaults: the others; a value takes the type of its default.

  Raises:
    ValueError: if a name is unknown or missing, or a value is malformed.
  """
  known = [*names, *defaults]
  values = dict(defaults)
  parts = [part for part in (arg or '').split(',') if part]
  for position, part in enumerate(parts):
    key, is_named, value = part.partition('=')
    if not is_named:
      if position >= len(known):
        raise ValueError(f'{arg!r} has more values than {known}.')
      key, value = known[position], part
    if key not in known:
      raise ValueError(f'Unknown {key!r} in {arg!r}; there are {known}.')
    if key in defaults and not isinstance(defaults[key], str):
      value = _convert(value, like=defaults[key], key=key)
    values[key] = value
  missing = [name for name in names if name not in values]
  if missing:
    raise ValueError(
      f'{missing[0]!r} is missing: write --config=FILE.py:{",".join(names)}'
    )
  return values


def _convert(text: str, *, like: Any, key: str) -> Any:
  try:
    return type(like)(text)
  except ValueError as error:
    kind = type(like).__name__
    raise ValueError(f'{key}={text!r} is no {kind}, such as {like}.') from error


def variant(name: str) -> str:
  """Spells a variant as papers do: B_16 -> B/16, R26_S_32 -> R26+S/32."""
  *parts, patch = name.replace('/', '_').replace('+', '_').split('_')
  return f'{"+".join(parts)}/{patch}'


class DataSet(NamedTuple):
  """How a data set is split and how long papers fine-tune on it.

  Attributes:
    train: address of the examples for training.
    evals: addresses of those for evaluation, by name.
    duration: of fine-tuning.
    warmup: of the learning rate.
  """

  train: str
  evals: dict[str, str]
  duration: str
  warmup: str


# Splits of google-research/vision_transformer and big_vision; durations of
# AugReg, section 3.4 (arXiv:2106.10270).
DATA_SETS = {
  'cifar10': DataSet(
    'tfds:cifar10:train[:98%]',
    {'val': 'tfds:cifar10:train[98%:]', 'test': 'tfds:cifar10:test'},
    '10_000 steps',
    '500 steps',
  ),
  'cifar100': DataSet(
    'tfds:cifar100:train[:98%]',
    {'val': 'tfds:cifar100:train[98%:]', 'test': 'tfds:cifar100:test'},
    '10_000 steps',
    '500 steps',
  ),
  'imagenet2012': DataSet(
    'tfds:imagenet2012:train[:99%]',
    {
      'minival': 'tfds:imagenet2012:train[99%:]',
      'val': 'tfds:imagenet2012:validation',
    },
    '20_000 steps',
    '500 steps',
  ),
  # TFDS has one split of it; these parts are AugReg's (section 3).
  'resisc45': DataSet(
    'tfds:resisc45:train[:60%]',
    {
      'val': 'tfds:resisc45:train[60%:80%]',
      'test': 'tfds:resisc45:train[80%:]',
    },
    '10_000 steps',
    '500 steps',
  ),
  'oxford_iiit_pet': DataSet(
    'tfds:oxford_iiit_pet:train[:90%]',
    {
      'val': 'tfds:oxford_iiit_pet:train[90%:]',
      'test': 'tfds:oxford_iiit_pet:test',
    },
    '500 steps',
    '100 steps',
  ),
  'oxford_flowers102': DataSet(
    'tfds:oxford_flowers102:train',
    {
      'val': 'tfds:oxford_flowers102:validation',
      'test': 'tfds:oxford_flowers102:test',
    },
    '500 steps',
    '100 steps',
  ),
}


def use_data_set(
  config: ml_collections.ConfigDict, name: str, *, loss: str = 'softmax'
) -> DataSet:
  """Trains and evaluates on a data set of the table."""
  if name not in DATA_SETS:
    raise ValueError(
      f'Unknown data set {name!r}; there are {sorted(DATA_SETS)}. For your own '
      'images give --config.data.train and --config.evals.val.data.'
    )
  data_set = DATA_SETS[name]
  config.data.train = data_set.train
  for key, address in data_set.evals.items():
    config.evals[key] = evaluation(address, loss=loss)
  return data_set


def use_imagenet21k(
  config: ml_collections.ConfigDict, *, loss: str = 'softmax'
) -> None:
  """Asks for a folder of ImageNet-21k, which TFDS does not have.

  51,200 of its 14,197,122 images are held out, as in big_vision.
  """
  config.data.train = ''
  config.data.held_out = 51_200 / 14_197_122
  config.evals = {'val': evaluation('', loss=loss)}


def finetune(
  config: ml_collections.ConfigDict, *, size: int, data: str = ''
) -> None:
  """The fine-tuning of ViT and AugReg (arXiv:2106.10270, section 3.4).

  SGD with a bfloat16 momentum, batch 512, no weight decay, an Inception crop
  for training, and a plain resize for evaluation.

  Args:
    config: is changed.
    size: of the image, in pixels.
    data: a name of `DATA_SETS`; '' for the user's own images: 500 steps, and
      for evaluation their validation split or a tenth held out.
  """
  config.batch_size = 512
  config.optim = {
    'name': 'sgd',
    'momentum': 0.9,
    'momentum_dtype': 'bfloat16',
    'learning_rate': 0.03,
    'clip_norm': 1.0,
    'schedule': {'name': 'cosine', 'warmup': '500 steps'},
  }
  config.transforms = (op('inception_crop', size=size),)
  config.preprocess = (op('resize', size=size),)
  if data:
    data_set = use_data_set(config, data)
    config.duration = data_set.duration
    config.optim.schedule.warmup = data_set.warmup
  else:
    config.duration = '500 steps'
    config.optim.schedule.warmup = '100 steps'
    config.evals.val = evaluation('')


def pretrain(
  config: ml_collections.ConfigDict,
  *,
  size: int,
  randaugment: tuple[int, int] | None = None,
) -> None:
  """The images of Google's pre-training.

  Inception crop and flip; for evaluation, resize and central crop.

  Args:
    config: is changed.
    size: of the image, in pixels.
    randaugment: layers and magnitude; None for no RandAugment.
  """
  config.transforms = (op('inception_crop', size=size),)
  config.preprocess = (
    op('resize_small', size=round(size * 256 / 224)),
    op('central_crop', size=size),
  )
  if randaugment:
    layers, magnitude = randaugment
    policy = op('randaugment', num_layers=layers, magnitude=magnitude)
    config.augment = (op('flip'), policy)


def use_teacher(
  config: ml_collections.ConfigDict, source: str, **options: Any
) -> None:
  """Learns from a trained model, see vit_jax/objectives/distillation.py.

  What model that is, and the mean and deviation of its images, are copied from
  its record. Mixup and label smoothing stay as they are.

  Args:
    config: is changed.
    source: a run directory, 'runs/other' or 'runs/other@1000', or a name of the
      catalogue.
    **options: of the objective.

  Raises:
    ValueError: if it is neither.
  """
  facts = trained.look_up(source)
  if facts is None:
    raise ValueError(
      f'No run lies in {source!r}, and the catalogue has no such name: list it '
      "with `python -m vit_jax.tools.zoo --pretrained '*'`."
    )
  config.objective.name = 'distillation'
  del config.objective.loss
  config.objective.update(options)
  config.objective.teacher = {**facts.model, 'normalize': facts.normalize}
  config.init.teacher = source


def imagenet_of_timm(
  config: ml_collections.ConfigDict,
  *,
  size: int,
  crop_ratio: float,
  loss: str = 'softmax',
) -> None:
  """ImageNet-1k as the recipes of DeiT and its descendants take it, from timm.

  All of the training split; bicubic, antialiased; flip, RandAugment
  ('rand-m9-mstd0.5-inc1') and random erasing; normalised by the statistics of
  ImageNet; judged on a central crop.

  Args:
    config: is changed.
    size: of the image, in pixels.
    crop_ratio: side of the central crop over the shorter side of the image.
    loss: of training.
  """
  resample = {'method': 'bicubic', 'antialias': True}
  config.data.train = 'tfds:imagenet2012:train'
  config.evals.val = evaluation('tfds:imagenet2012:validation', loss=loss)
  config.transforms = (op('random_resized_crop', size=size, **resample),)
  config.preprocess = (
    op('resize_small', size=int(size / crop_ratio), **resample),
    op('central_crop', size=size),
  )
  config.augment = (
    op('flip'),
    op('randaugment_timm', num_layers=2, magnitude=9, magnitude_std=0.5),
    op('random_erasing', probability=0.25),
  )
  config.normalize = {'mean': IMAGENET_MEAN, 'std': IMAGENET_STD}
