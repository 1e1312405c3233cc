"""What a compiled program moves: read from the text of its HLO.

XLA's own `cost_analysis` counts the body of a loop once, whatever the number of
its turns, so it is of no use for a scan. Here a body counts as often as it
runs. The text is that of `compiled.as_text()`, after partitioning: all sizes
are those of one device.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

# Bytes of an element, by the first letters of its type and its bits.
_ARRAY = re.compile(r'\b(pred|[a-z]+(\d+)\w*)\[([\d,<=]*)\](\{[^}]*\})?')
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{$')
_LINE = re.compile(r'^\s+(ROOT )?%?([\w.\-]+) = (.*)$')
_CALLED = re.compile(
  r'\b(?:calls|to_apply|async_execution_thread_calls)=%?([\w.\-]+)'
)
_BRANCHES = re.compile(
  r'\b(?:branch_computations=\{([^}]*)\}'
  r'|true_computation=(\S+?), false_computation=([\w.\-%]+))'
)

# What each sends, in bytes that go in, to the others of a ring of n devices.
COLLECTIVES = {
  'all-gather': lambda n: n - 1,
  'all-reduce': lambda n: 2 * (n - 1) / n,
  'reduce-scatter': lambda n: (n - 1) / n,
  'all-to-all': lambda n: (n - 1) / n,
  'collective-permute': lambda n: 1,
}
# These give an array another name or shape, or stand for their computation.
_FREE = {
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast'),
  *('while', 'conditional', 'call', 'after-all', 'partition-id', 'replica-id'),
  *('iota', 'opt-barrier', 'domain', 'add-dependency'),
}
# These read as much of their first operand as they return.
_SLICES = {'dynamic-slice', 'slice', 'gather'}
_RENAMES = {'bitcast', 'get-tuple-element', 'reshape'}
# The last result of a kernel of cuBLAS or cuDNN is where it may scribble.
_SCRATCH = re.compile(r', [su]8\[\d+\](\{0\})?\)$')


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Of one device, in one run of the program.

  Attributes:
    sent: bytes sent to other devices, by the kind of collective: what a ring
      sends, which for n devices is (n - 1) / n of the whole array, and twice
      that in an all-reduce.
    calls: how often each kind runs.
    memory: bytes read from and written to the device's memory. What a fusion
      keeps to itself and what lies in a memory space of its own is not counted.
    endless: loops whose number of turns is not in the program: counted once.
  """

  sent: Mapping[str, float] = dataclasses.field(default_factory=dict)
  calls: Mapping[str, int] = dataclasses.field(default_factory=dict)
  memory: float = 0.0
  endless: int = 0

  def __add__(self, other: 'Traffic') -> 'Traffic':
    return Traffic(
      _merge(self.sent, other.sent),
      _merge(self.calls, other.calls),
      self.memory + other.memory,
      self.endless + other.endless,
    )

  def times(self, turns: int) -> 'Traffic':
    """That of so many runs."""
    return Traffic(
      {kind: turns * x for kind, x in self.sent.items()},
      {kind: turns * x for kind, x in self.calls.items()},
      turns * self.memory,
      self.endless,
    )


def _merge(one, other):
  total = collections.Counter(one)
  total.update(other)
  return dict(total)


class _Instruction(NamedTuple):
  name: str
  type: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str


def traffic(text: str) -> Traffic:
  """What a program sends, reads and writes.

  Raises:
    ValueError: if the text is not that of an HLO module.
  """
  return _Program(text).traffic()


class _Program:
  """The computations of a module."""

  def __init__(self, text: str):
    self.computations: dict[str, dict[str, _Instruction]] = {}
    self.roots: dict[str, str] = {}
    self.entry = ''
    found = re.search(r'num_partitions=(\d+)', text)
    self.partitions = int(found[1]) if found else 1
    name = ''
    for line in text.splitlines():
      if header := _HEADER.match(line):
        name = header[2]
        self.computations[name] = {}
        self.entry = name if header[1] else self.entry
      elif name and (match := _LINE.match(line)):
        self.computations[name][match[2]] = _instruction(match[2], match[3])
        if match[1]:
          self.roots[name] = match[2]
    if not self.entry:
      raise ValueError('This is no text of an HLO module: it has no ENTRY.')
    self.cost = functools.cache(self._cost)

  def traffic(self) -> Traffic:
    """That of the entry."""
    return self.cost(self.entry)

  def _cost(self, name: str) -> Traffic:
    """Of a computation that runs once, with all that it calls."""
    total = Traffic(memory=self._memory(name))
    # The parts of an asynchronous collective share a channel.
    for _, (kind, sent) in dict(self._collectives(name)).items():
      total += Traffic({kind: sent}, {kind: 1})
    for x in self.computations[name].values():
      if x.opcode == 'while':
        (body,) = re.findall(r'\bbody=%?([\w.\-]+)', x.attributes)
        turns = self._turns(x)
        total += self.cost(body).times(turns or 1)
        total += Traffic(endless=turns is None)
      elif x.opcode == 'call':
        total += self.cost(*_CALLED.findall(x.attributes))
      elif x.opcode == 'conditional':
        found = _BRANCHES.search(x.attributes)
        words = ','.join(filter(None, found.groups())) if found else ''
        branches = [self.cost(b) for b in re.findall(r'[\w.\-]+', words)]
        total += max(branches, key=lambda t: sum(t.sent.values()) + t.memory)
    return total

  def _turns(self, loop: _Instruction) -> int | None:
    """How often a loop turns, if it counts up to a constant."""
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
      return int(known[1])
    (condition,) = re.findall(r'\bcondition=%?([\w.\-]+)', loop.attributes)
    limits = [
      int(found[1])
      for x in self.computations[condition].values()
      if x.opcode == 'constant'
      and (found := re.match(r'(\d+)\)', x.attributes))
    ]
    return limits[0] if len(limits) == 1 else None

  def _collectives(
    self, name: str
  ) -> Iterator[tuple[tuple[str, str], tuple[str, float]]]:
    """Yields (kind, channel), and the kind and what it sends.

    Those in a fusion, or started asynchronously, belong to the caller.
    """
    for x in self.computations[name].values():
      kind = x.opcode.removesuffix('-start')
      if kind in COLLECTIVES:
        operand = sum(self._bytes(name, o, anywhere=True) for o in x.operands)
        size = self._group(x)
        if kind == 'all-reduce' and name.startswith('all-reduce-scatter'):
          kind = 'reduce-scatter'
        channel = re.search(r'channel_id=(\d+)', x.attributes)
        key = (x.opcode, channel[1] if channel else x.name)
        if size > 1:
          yield key, (kind, operand * COLLECTIVES[kind](size))
      elif x.opcode in ('fusion', 'async-start'):
        for called in _CALLED.findall(x.attributes):
          yield from self._collectives(called)

  def _group(self, x: _Instruction) -> int:
    """How many devices take part together."""
    if x.opcode.startswith('collective-permute'):
      return self.partitions
    text = x.attributes.partition('replica_groups=')[2]
    if found := re.match(r'\{\{([\d,]+)\}', text):
      return found[1].count(',') + 1
    if found := re.match(r'\[\d+,(\d+)\]<=', text):
      return int(found[1])
    if found := re.match(r'@?mesh\[([^\]]*)\]\s*\{([^}]*)\}', text):
      sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
      # A part of an axis is written 'axis':(size before it)size.
      named = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
      return math.prod(int(part or sizes[axis]) for axis, part in named)
    return self.partitions

  def _bytes(self, name: str, operand: str, *, anywhere: bool = False) -> float:
    found = self.computations[name]
    return _size(found[operand].type, anywhere) if operand in found else 0.0

  def _memory(self, name: str) -> float:
    """Bytes that the instructions themselves read and write."""
    total = 0.0
    for x in self.computations[name].values():
      if x.opcode in _FREE or x.opcode.endswith(('-done', '-update')):
        continue
      if x.opcode == 'fusion':
        (called,) = _CALLED.findall(x.attributes)
        written = self._written(called, self.roots[called])
        total += min(written, _size(x.type))
        for i, operand in enumerate(x.operands):
          whole = self._bytes(name, operand)
          total += min(whole, self._read(called, self._parameter(called, i)))
      elif x.opcode.endswith('-start'):
        # Its tuple holds what goes in and what comes out.
        total += _size(x.type)
      elif x.opcode in _SLICES:
        total += 2 * _size(x.type)
      elif x.opcode == 'dynamic-update-slice':
        total += 2 * self._bytes(name, x.operands[1])
      else:
        is_cuda = x.opcode == 'custom-call' and '"__cu' in x.attributes
        total += _size(_SCRATCH.sub(')', x.type) if is_cuda else x.type)
        total += sum(self._bytes(name, operand) for operand in x.operands)
    return total

  def _parameter(self, name: str, index: int) -> str:
    for x in self.computations[name].values():
      if x.opcode == 'parameter' and x.attributes.startswith(f'{index})'):
        return x.name
    return ''

  def _read(self, name: str, value: str) -> float:
    """How much of a value the computation reads: slices are not the whole."""
    whole = self._bytes(name, value, anywhere=True)
    total = 0.0
    for x in self.computations[name].values():
      for i, operand in enumerate(x.operands):
        if operand != value:
          continue
        if x.opcode in _SLICES:
          total += _size(x.type, True) if i == 0 else 0
        elif x.opcode == 'dynamic-update-slice' and i == 0:
          total += 0  # written in place
        elif x.opcode in _RENAMES:
          total += self._read(name, x.name)
        elif x.opcode == 'fusion':
          (called,) = _CALLED.findall(x.attributes)
          total += self._read(called, self._parameter(called, i))
        else:
          total += whole
    return min(total, whole)

  def _written(self, name: str, value: str) -> float:
    """How much of a result is new: an update in place is not the whole."""
    x = self.computations[name][value]
    if x.opcode == 'dynamic-update-slice':
      return self._bytes(name, x.operands[1], anywhere=True)
    if x.opcode == 'tuple':
      return sum(self._written(name, operand) for operand in x.operands)
    if x.opcode in ('bitcast', 'reshape'):
      return self._written(name, x.operands[0])
    return _size(x.type)


def _instruction(name: str, text: str) -> _Instruction:
  """Reads `TYPE OPCODE(OPERANDS), ATTRIBUTES`."""
  end = _closing(text, 0) + 1 if text.startswith('(') else text.index(' ')
  opcode, _, rest = text[end:].strip().partition('(')
  stop = _closing(f'({rest}', 0)
  operands = tuple(re.findall(r'%([\w.\-]+)', rest[:stop]))
  return _Instruction(name, text[:end], opcode, operands, rest)


def _closing(text: str, start: int) -> int:
  """Where the parenthesis that opens at `start` closes."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == '(') - (text[i] == ')')
    if not depth:
      return i
  return len(text)


@functools.lru_cache(maxsize=100_000)
def _size(shape: str, anywhere: bool = False) -> float:
  """Bytes of a type, which may be a tuple.

  Args:
    shape: such as 'bf16[8,128]{1,0:T(8,128)S(1)}'; S(1) is another memory than
      the device's main one.
    anywhere: whether to count what lies in such a memory as well.
  """
  total = 0.0
  for kind, bits, dims, layout in _ARRAY.findall(shape):
    if re.search(r'S\([1-9]', layout) and not anywhere:
      continue
    width = 1 if kind == 'pred' else _bits(kind, bits) / 8
    sizes = [int(d.strip('<=')) for d in dims.split(',') if d]
    total += width * math.prod(sizes)
  return total


def _bits(kind: str, bits: str) -> int:
  """Of an element: 16 for bf16, 8 for f8e4m3fn."""
  return int(bits) if kind[0] in 'bfcsu' else 0
