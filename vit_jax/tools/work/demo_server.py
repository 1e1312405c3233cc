"""The server of `tools/demo`: a page, and what answers to its images.

Nobody but this machine is served by default, and then only under its own names,
so that no page of others reaches it by a name that they point here. An image
comes as the body of a request of a type that browsers let no other page send.
"""

import pathlib
import secrets
import threading
from collections.abc import Callable
from typing import Any

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from vit_jax.data.decoding import FORMATS

MEGABYTES = 20  # of a file
TYPE = 'application/octet-stream'
WAITING = 16  # requests at a time; others are told to come back
LOCAL = ('127.0.0.1', 'localhost', '[::1]')
HEADERS = {
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cache-Control': 'no-store',
}


class RefusedError(ValueError):
  """A request that is answered with a message.

  Attributes:
    status: of HTTP.
  """

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status


def make_app(
  look: Callable[[bytes], dict[str, Any]], *, name: str, host: str
) -> Starlette:
  """The page and its answers, as an ASGI application.

  Args:
    look: see `demo.make_look`; called for one image at a time.
    name: of the model.
    host: that is listened at.
  """
  busy = threading.Lock()
  template = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
  ).get_template('demo.html')

  def page(request: Request) -> Response:
    del request
    nonce = secrets.token_urlsafe()
    text = template.render(
      name=name,
      nonce=nonce,
      formats=', '.join(FORMATS),
      accept=','.join(f'image/{kind.lower()}' for kind in FORMATS),
      megabytes=MEGABYTES,
    )
    policy = (
      f"default-src 'none'; script-src 'nonce-{nonce}'; img-src data:; "
      "style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; "
      "form-action 'none'; frame-ancestors 'none'"
    )
    return HTMLResponse(
      text, headers={**HEADERS, 'Content-Security-Policy': policy}
    )

  def look_in_turn(content: bytes) -> dict[str, Any]:
    with busy:
      return look(content)

  async def answer(request: Request) -> Response:
    try:
      content = await _body(request)
      return JSONResponse(
        await run_in_threadpool(look_in_turn, content), headers=HEADERS
      )
    except ValueError as error:
      status = error.status if isinstance(error, RefusedError) else 422
      return JSONResponse({'error': str(error)}, status, headers=HEADERS)

  names = list(LOCAL) if host in (*LOCAL, '::1') else ['*']
  return Starlette(
    routes=[
      Route('/', page),
      Route('/look', answer, methods=['POST']),
    ],
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=names)],
  )


async def _body(request: Request) -> bytes:
  """The body of a request, which is not read further than it may be long."""
  headers = {'content-type': '', **request.headers}
  if headers['content-type'] != TYPE:
    raise RefusedError(415, f'Send the file as it is, as {TYPE}.')
  limit = MEGABYTES * 10**6
  parts, size = [], 0
  async for part in request.stream():
    size += len(part)
    if size > limit:
      raise RefusedError(
        413, f'The file has more than {MEGABYTES} MB: shrink the image.'
      )
    parts.append(part)
  return b''.join(parts)


def make_server(app: Starlette, *, host: str, port: int) -> uvicorn.Server:
  """What serves the page, once it runs."""
  return uvicorn.Server(
    uvicorn.Config(
      app,
      host=host,
      port=port,
      limit_concurrency=WAITING,
      timeout_keep_alive=5,
      log_level='warning',
      server_header=False,
    )
  )


def serve(
  look: Callable[[bytes], dict[str, Any]], *, name: str, host: str, port: int
) -> None:
  """Serves until it is interrupted."""
  app = make_app(look, name=name, host=host)
  print(f'{name}: open http://{host}:{port} (Ctrl-C ends it)', flush=True)
  make_server(app, host=host, port=port).run()
