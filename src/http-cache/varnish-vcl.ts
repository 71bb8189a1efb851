import { createHmac } from 'node:crypto'

/** Changes when a node can no longer work with a VCL that was made before. */
export const vclLevel = '1'
/**
 * Nodes give up after 30 s, so a response that has not begun by then never comes. Until its headers
 * arrive, a fetch escapes every purge.
 */
export const firstByteTimeoutS = 35
/** Types fall into so many groups; a purge leaves a fence for each group that it concerns. */
const fenceGroups = 64
/** Groups of one response or purge that the VCL looks at, as it has no loops. */
export const groupsMax = 10
const keptS = 86_400
/** While no node responds, a response is served this long after its time or its purge. */
export const graceSDefault = 3_600

export type VclOptions = {
  /** HOST:PORT of each node. */
  readonly nodes: readonly string[]
  readonly purgeKey: string
  readonly graceS: number
}

/** The group of a type, by its coarse tag. */
export function fenceGroup(coarseTag: string): string {
  return String(Number.parseInt(coarseTag.slice(0, 4), 16) % fenceGroups)
}

/** A request needs this key to purge. It does not give away the secret that it is made of. */
export function purgeKeyOf(secret: string): string {
  return createHmac('sha256', secret).update('stoa purges of the HTTP cache').digest('hex')
}

/**
 * The VCL of a Varnish in front of the nodes, for Varnish 7 with the modules xkey, str and var.
 * docs/guide/http-cache.md says what it holds, and why.
 */
export function varnishVcl(options: VclOptions): string {
  return [
    head(options.nodes),
    receive(options),
    purging(),
    lookUp(),
    fetching(options),
    fences(),
    deliver(),
  ].join('\n')
}

function allGroups(lines: (group: number) => string): string {
  return Array.from({ length: fenceGroups }, (_, group) => lines(group)).join('\n')
}

function each(lines: (group: number) => string): string {
  return Array.from({ length: groupsMax }, (_, at) => lines(at + 1)).join('\n')
}

function head(nodes: readonly string[]): string {
  const backends = nodes.map((node, at) => backend(`node${at + 1}`, node)).join('\n')
  const added = nodes.map((_, at) => `  nodes.add_backend(node${at + 1});`).join('\n')
  return `vcl 4.1;
# Made by "stoa http-cache vcl". It has the key that purges: keep it from strangers.

import directors;
import std;
import str;
import var;
import xkey;

probe ready {
  .url = "/healthz/ready";
  .interval = 1s;
  .timeout = 2s;
  .window = 3;
  .threshold = 2;
  .initial = 2;
}

${backends}

sub vcl_init {
  new nodes = directors.round_robin();
${added}
}
`
}

function backend(name: string, node: string): string {
  const [, host = node, port = '80'] = /^\[?(.*?)\]?:(\d+)$/.exec(node) ?? []
  return `backend ${name} {
  .host = "${host}";
  .port = "${port}";
  .probe = ready;
  .connect_timeout = 2s;
  .first_byte_timeout = ${firstByteTimeoutS}s;
  .between_bytes_timeout = 60s;
}`
}

function receive({ purgeKey, graceS }: VclOptions): string {
  return `sub vcl_recv {
  set req.backend_hint = nodes.backend();
  unset req.http.stoa-looked-up;
  if (req.method == "PURGE") {
    if (req.http.stoa-purge-key != "${purgeKey}") {
      return (synth(403, "Not allowed"));
    }
    call stoa_purge;
    return (synth(200, "Purged"));
  }
  unset req.http.stoa-purge-key;
  if (req.method != "GET" && req.method != "HEAD") {
    return (pass);
  }
  # What the permissions of a caller decide is shared nowhere.
  if (req.http.Authorization || req.http.Cookie ~ "stoa_session") {
    return (pass);
  }
  # The token of the reader's last write; a browser carries it as a cookie.
  if (!req.http.Stoa-Token && req.http.Cookie ~ "(^|; *)stoa_token=") {
    set req.http.Stoa-Token = regsub(req.http.Cookie, "^.*?(^|; *)stoa_token=([^;]*).*$", "\\2");
  }
  unset req.http.Cookie;
  if (req.http.Stoa-Token == "") {
    unset req.http.Stoa-Token;
  }
  if (req.http.Stoa-Token && req.http.Stoa-Token !~ "^[0-9a-f.]+-[0-9]{1,15}$") {
    return (pass);
  }
  set req.http.stoa-looked-up = "1";
  # Nothing past its time, or purged, while a node responds.
  if (req.restarts == 0 && std.healthy(req.backend_hint)) {
    set req.grace = 0s;
  } else {
    set req.grace = ${graceS}s;
  }
  return (hash);
}
`
}

/** Fences first: whatever is fetched between the two is refused, and not purged too early. */
function purging(): string {
  return `sub stoa_purge {
  if (var.global_get("stoa-epoch") != req.http.stoa-epoch) {
    # Numbers of two epochs do not compare, and all is purged at the border.
    var.global_set("stoa-epoch", req.http.stoa-epoch);
    var.global_set("stoa-fence-all", "0");
    var.global_set("stoa-fence-any", "0");
${allGroups((group) => `    var.global_set("stoa-fence-${group}", "0");`)}
  }
  if (std.integer(req.http.stoa-count, 0) > std.integer(var.global_get("stoa-fence-any"), 0)) {
    var.global_set("stoa-fence-any", req.http.stoa-count);
  }
${each(
  (at) => `  set req.http.stoa-group = str.split(req.http.stoa-groups, ${at}, " ");
  if (req.http.stoa-group != "" &&
    std.integer(req.http.stoa-count, 0) >
    std.integer(var.global_get("stoa-fence-" + req.http.stoa-group), 0)) {
    var.global_set("stoa-fence-" + req.http.stoa-group, req.http.stoa-count);
  }`,
)}
  if (req.http.stoa-purge == "soft") {
    set req.http.stoa-purged = xkey.softpurge(req.http.stoa-tags);
  } else {
    set req.http.stoa-purged = xkey.purge(req.http.stoa-tags);
  }
}
`
}

function lookUp(): string {
  return `sub vcl_hit {
  # A reader sees its own write: what may lack it is asked of a node.
  if (req.http.Stoa-Token && (
    obj.http.stoa-as-of-epoch != regsub(req.http.Stoa-Token, "-[0-9]+$", "") ||
    std.integer(obj.http.stoa-as-of-first, 0) <=
    std.integer(regsub(req.http.Stoa-Token, "^.*-", ""), 0))) {
    return (pass);
  }
  return (deliver);
}

sub vcl_miss {
  if (req.restarts > 0) {
    return (pass);
  }
  return (fetch);
}
`
}

function fetching({ graceS }: VclOptions): string {
  return `sub vcl_backend_response {
  if (bereq.uncacheable) {
    return (deliver);
  }
  # What is kept stays: the request looks for it once more, and then passes.
  if (beresp.status >= 500) {
    return (abandon);
  }
  if (beresp.status != 200 || beresp.http.Set-Cookie ||
    !beresp.http.xkey || !beresp.http.stoa-as-of) {
    set beresp.uncacheable = true;
    set beresp.ttl = 60s;
    return (deliver);
  }
  set beresp.http.stoa-as-of-epoch = regsub(beresp.http.stoa-as-of, " .*$", "");
  set beresp.http.stoa-as-of-count = regsub(beresp.http.stoa-as-of, "^[^ ]+ ([0-9]+) .*$", "\\1");
  set beresp.http.stoa-as-of-first = regsub(beresp.http.stoa-as-of, "^.* ", "");
  unset beresp.http.stoa-old;
  call stoa_fences;
  if (beresp.http.stoa-old) {
    # It was read before the last purge of its kind: the next request asks again.
    set beresp.uncacheable = true;
    set beresp.ttl = 1s;
    return (deliver);
  }
  # Requests with credentials pass, and tokens are looked at above: neither makes variants.
  set beresp.http.stoa-vary = beresp.http.Vary;
  set beresp.http.Vary =
    regsuball(beresp.http.Vary, "(?i)(authorization|cookie|stoa-token) *,? *", "");
  set beresp.http.Vary = regsub(beresp.http.Vary, "[, ]+$", "");
  if (beresp.http.Vary == "") {
    unset beresp.http.Vary;
  }
  set beresp.ttl = ${keptS}s;
  set beresp.grace = ${graceS}s;
  set beresp.keep = 0s;
  return (deliver);
}

sub vcl_backend_error {
  return (abandon);
}
`
}

/** The response shows less than the last purge of this group of types did. */
const isOld = `std.integer(var.global_get("stoa-fence-" + beresp.http.stoa-group), 0) >
    std.integer(beresp.http.stoa-as-of-count, 0)`

function fences(): string {
  return `sub stoa_fences {
  if (var.global_get("stoa-epoch") &&
    var.global_get("stoa-epoch") != beresp.http.stoa-as-of-epoch) {
    set beresp.http.stoa-old = "1";
  }
  set beresp.http.stoa-group = "all";
  if (beresp.http.stoa-groups == "all") {
    set beresp.http.stoa-group = "any";
  }
  if (${isOld}) {
    set beresp.http.stoa-old = "1";
  }
${each(
  (at) => `  set beresp.http.stoa-group = str.split(beresp.http.stoa-groups, ${at}, " ");
  if (beresp.http.stoa-group != "" && ${isOld}) {
    set beresp.http.stoa-old = "1";
  }`,
)}
  unset beresp.http.stoa-group;
}
`
}

function deliver(): string {
  return `sub vcl_deliver {
  if (resp.http.stoa-vary) {
    set resp.http.Vary = resp.http.stoa-vary;
  }
  if (obj.hits > 0) {
    set resp.http.Cache-Status = "varnish; hit";
  } else if (resp.http.Cache-Status) {
    set resp.http.Cache-Status = resp.http.Cache-Status + ", varnish; fwd=miss";
  }
  unset resp.http.stoa-vary;
  unset resp.http.stoa-old;
  unset resp.http.stoa-groups;
  unset resp.http.stoa-as-of-epoch;
  unset resp.http.stoa-as-of-count;
  unset resp.http.stoa-as-of-first;
  unset resp.http.xkey;
}

sub vcl_synth {
  if (req.method == "PURGE") {
    set resp.http.stoa-vcl = "${vclLevel}";
    return (deliver);
  }
  # No node responded: what is kept may be served within its grace.
  if (resp.status == 503 && req.restarts == 0 && req.http.stoa-looked-up) {
    return (restart);
  }
}
`
}
