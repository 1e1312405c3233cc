"""The page over real HTTP: a server in a thread, as the command starts it."""

import base64
import contextlib
import http.client
import json
import socket
import struct
import sys
import threading
import time
import zlib

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tools.untrained import CLASSES, MIXER, VIT, noise, untrained
from vit_jax.tools import command
from vit_jax.tools import demo as tool
from vit_jax.tools.work import demo, demo_server


def png(image):
  return cv2.imencode('.png', image[..., ::-1])[1].tobytes()


def claiming(height, width):
  """A small file whose header claims this size."""
  content = png(np.zeros((1, 1, 3), np.uint8))
  header = b'IHDR' + struct.pack('>II', width, height) + content[24:29]
  checksum = struct.pack('>I', zlib.crc32(header))
  return content[:12] + header + checksum + content[33:]


@pytest.fixture(scope='module')
def look():
  return demo.make_look(untrained('vit', **VIT), top=2)


@contextlib.contextmanager
def served(look, *, host='127.0.0.1'):
  """Yields (method, path, body, headers) -> status, headers, text."""
  app = demo_server.make_app(look, name='<b>mine', host=host)
  with socket.socket() as listening:
    listening.bind(('127.0.0.1', 0))
    port = listening.getsockname()[1]
    server = demo_server.make_server(app, host='127.0.0.1', port=port)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()

    def ask(method, path, body=None, **headers):
      connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
      headers = {k.replace('_', '-'): v for k, v in headers.items()}
      connection.request(method, path, body, headers)
      answer = connection.getresponse()
      text = answer.read().decode()
      connection.close()
      return answer.status, answer.headers, text

    try:
      while not server.started:
        time.sleep(0.01)
      yield ask
    finally:
      server.should_exit = True
      thread.join()


def send(ask, body, **headers):
  headers = {'Content_Type': demo_server.TYPE, **headers}
  status, _, text = ask('POST', '/look', body, **headers)
  return status, json.loads(text)


def test_an_image_is_answered_with_its_classes_and_pictures(look):
  image = noise()
  with served(look) as ask:
    status, found = send(ask, png(image))
  assert status == 200
  model = untrained('vit', **VIT)
  logits = model.predict(
    model.params, model.state, {'image': jnp.asarray(image[None])}
  ).logits[0]
  expected = np.exp(logits) / np.exp(logits).sum()
  order = np.argsort(-expected)[:2]
  assert [x['class'] for x in found['classes']] == [CLASSES[k] for k in order]
  np.testing.assert_allclose(
    [x['probability'] for x in found['classes']], expected[order], rtol=1e-4
  )
  assert found['kind'] == 'attention rollout'
  np.testing.assert_array_equal(decoded(found['image']), image)
  assert decoded(found['attention']).shape == (480, 480, 3)


def decoded(source):
  content = np.frombuffer(base64.b64decode(source.partition(',')[2]), np.uint8)
  return cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1]


def test_a_model_without_attention_shows_none():
  found = demo.make_look(untrained('mlp_mixer', **MIXER), top=1)(png(noise()))
  assert len(found['classes']) == 1
  assert found['attention'] == found['kind'] == ''


@pytest.mark.parametrize(
  ('body', 'status', 'message'),
  [
    (b'', 422, 'The file is empty'),
    (b'<svg onload=alert(1)>', 422, 'Not an image in JPEG, PNG'),
    (png(noise())[:60], 422, 'Broken or truncated'),
    (png(np.zeros((1, 40, 3), np.uint8)), 422, 'has 40 x 1 pixels: crop it'),
    (claiming(8000, 8000), 422, 'claims 8000 x 8000 pixels'),
    (bytes(21_000_000), 413, 'more than 20 MB'),
  ],
  ids=['empty', 'svg', 'cut', 'long', 'bomb', 'large'],
)
def test_what_it_does_not_take_is_refused_with_a_reason(
  look, body, status, message
):
  with served(look) as ask:
    found, answer = send(ask, body)
  assert found == status and message in answer['error']


def test_no_other_page_can_use_it(look):
  with served(look) as ask:
    for kind in ('text/plain', 'multipart/form-data', 'image/png'):
      assert ask('POST', '/look', png(noise()), Content_Type=kind)[0] == 415
    for host in ('localhost:8000', '127.0.0.1'):
      assert ask('GET', '/', Host=host)[0] == 200
    # A name that somebody else points to this machine.
    assert ask('GET', '/', Host='evil.example')[0] == 400
    _, headers, _ = ask('GET', '/')
    assert 'access-control-allow-origin' not in headers
    policy = headers['content-security-policy']
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert ask('GET', '/docs')[0] == 404 and ask('GET', '/look')[0] == 405


def test_who_opens_it_to_others_is_reached_by_any_name():
  with served(lambda content: {}, host='0.0.0.0') as ask:
    assert ask('GET', '/', Host='box.example')[0] == 200


def test_the_page_names_the_model_and_its_limits(look):
  with served(look) as ask:
    _, headers, text = ask('GET', '/')
  assert '&lt;b&gt;mine' in text and '<b>mine' not in text
  assert 'JPEG, PNG, WEBP, BMP, GIF, at most 20 MB' in text
  assert 'src="http' not in text
  nonce = text.partition('nonce="')[2].partition('"')[0]
  assert f"'nonce-{nonce}'" in headers['content-security-policy']


def test_without_the_extra_the_remedy_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'uvicorn', None)
  monkeypatch.delitem(sys.modules, 'vit_jax.tools.work.demo_server')
  monkeypatch.delattr('vit_jax.tools.work.demo_server')
  said = command(lambda: tool.main(['--workdir=/nowhere']))
  assert 'pip install -r requirements-demo.txt' in said
