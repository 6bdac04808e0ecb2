"""The proxies that are compared: ours with and without its resilience, nginx, HAProxy, Envoy. All
have the same bounds: 250 ms for a connection, 1 s for an answer, three attempts, five failures
until a server is left alone for 2 s. Each is configured as its own documentation advises for
this."""

import pathlib

import harness

PLAIN = """
[server]
listen = ["127.0.0.1:{port}"]
[log]
access = "off"
[admin]
listen = "127.0.0.1:{admin}"
[store]
url = "memory:"
[upstreams.shop]
servers = [{servers}]
connect_timeout = "250ms"
response_timeout = "1s"
{more}
[routes.all]
path = "/*"
methods = ["GET", "POST"]
upstream = "shop"
"""
RESILIENT = """hedge = "p95"
[upstreams.shop.retry]
attempts = 3
on = ["connect", "refused", "reset", "timeout", "500", "502", "503"]
[upstreams.shop.eject]
failures = 5
time = "2s"
[upstreams.shop.health]
path = "/health"
interval = "1s"
[upstreams.shop.breaker]
window = "2s"
open = "1s"
"""
NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/nginx-body;
  proxy_temp_path {folder}/nginx-proxy;
  fastcgi_temp_path {folder}/nginx-fastcgi;
  uwsgi_temp_path {folder}/nginx-uwsgi;
  scgi_temp_path {folder}/nginx-scgi;
  upstream shop {{
    zone shop 64k;
    random two least_conn;
    {servers}
    keepalive 32;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://shop;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_connect_timeout 250ms;
      proxy_read_timeout 1s;
      proxy_next_upstream error timeout invalid_header http_500 http_502 http_503 http_504;
      proxy_next_upstream_tries 3;
    }}
  }}
}}
"""
HAPROXY = """
global
  maxconn 4096
  nbthread 1
defaults
  mode http
  timeout client 30s
  timeout connect 250ms
  timeout server 1s
  timeout check 1s
  retries 2
  option redispatch 1
  retry-on conn-failure empty-response junk-response response-timeout 500 502 503 504
frontend public
  bind 127.0.0.1:{port}
  http-request disable-l7-retry if METH_POST
  default_backend shop
backend shop
  balance random(2)
  option httpchk GET /health
  default-server check inter 1s fall 3 rise 2 observe layer7 error-limit 5 on-error mark-down
  {servers}
"""


def gateway(more):
    """Starts ours with more keys of its upstream."""
    def start(children, binary, ports):
        port, admin = harness.free_ports(2)
        servers = ", ".join(f'"http://127.0.0.1:{one}"' for one in ports)
        config = PLAIN.format(port=port, admin=admin, servers=servers, more=more)
        child = harness.start_gateway(children, binary, config, port)
        return child, port
    return start


def nginx(children, _binary, ports):
    """Starts nginx."""
    harness.need("nginx", "nginx")
    [port] = harness.free_ports(1)
    servers = " ".join(f"server 127.0.0.1:{one} max_fails=5 fail_timeout=2s;" for one in ports)
    path = children.folder / "nginx.conf"
    path.write_text(NGINX.format(folder=children.folder, port=port, servers=servers))
    child = children.start("nginx", ["nginx", "-p", children.folder, "-c", path])
    harness.wait_open(child, port, "nginx")
    return child, port


def haproxy(children, _binary, ports):
    """Starts HAProxy."""
    harness.need("haproxy", "haproxy")
    [port] = harness.free_ports(1)
    servers = "\n  ".join(f"server s{n} 127.0.0.1:{one}" for n, one in enumerate(ports))
    path = children.folder / "haproxy.cfg"
    path.write_text(HAPROXY.format(port=port, servers=servers))
    child = children.start("haproxy", ["haproxy", "-db", "-f", path])
    harness.wait_open(child, port, "HAProxy")
    return child, port


def envoy(children, _binary, ports):
    """Starts Envoy."""
    binary = harness.envoy_of_setup()
    if not binary:
        harness.stop("there is no Envoy: scripts/bench --setup installs one")
    [port] = harness.free_ports(1)
    address = "{{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}"
    servers = ", ".join(f"{{ endpoint: {address.format(one)} }}" for one in ports)
    text = (pathlib.Path(__file__).parent / "envoy.yaml").read_text()
    path = children.folder / "envoy.yaml"
    path.write_text(text.replace("@PORT@", str(port)).replace("@SERVERS@", servers))
    child = children.start("envoy", [
        binary, "--concurrency", "1", "-l", "error", "--base-id", str(port), "-c", path])
    harness.wait_open(child, port, "Envoy")
    return child, port


FRONTS = {
    "ours": gateway(RESILIENT),
    "ours, plain": gateway(""),
    "nginx": nginx,
    "haproxy": haproxy,
    "envoy": envoy,
}
