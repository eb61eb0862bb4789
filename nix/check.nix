# Finds the mistakes in a site's settings while a configuration is evaluated: keys, types and limits
# from the schema in facts.json, and the rules between keys that a box depends on. `headwater config
# check`, which runs when the file is built, knows the rest.
#
# Both `form` and `meaning` give lists of { path, found, allowed, fix }. `etc` is environment.etc of
# the machine: what lies there is a link into the store.
{ lib, facts, etc ? { } }:
let
  inherit (builtins) attrNames isAttrs isBool isFloat isInt isList isString length match;
  inherit (lib) concatMap concatStringsSep elem filter hasPrefix head optional;
  values = import ./values.nix { inherit lib; };
  inherit (values) isFile show;
  mistake = path: found: allowed: fix: { inherit path found allowed fix; };
  join = path: key: if path == "" then key else "${path}.${key}";

  octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
  ipv4 = "${octet}\\.${octet}\\.${octet}\\.${octet}";
  ipv6 = "[0-9a-fA-F:]*:[0-9a-fA-F:]*(${ipv4})?";
  portOf = text: lib.toInt (head (match ".*:([0-9]+)" text));
  isEndpoint = v: match "(${ipv4}|[A-Za-z0-9.-]*|\\[[0-9a-fA-F:.%]+]):0*[0-9]{1,5}" v != null && portOf v <= 65535;
  text = pattern: v: isString v && match pattern v != null;

  fits = {
    object = _: true;
    str = isString;
    bool = isBool;
    int = isInt;
    float = v: isFloat v || isInt v;
    Path = v: isString v && v != "";
    Endpoint = v: isString v && isEndpoint v;
    FileMode = v: text "0?o?[0-7]{3}" v || (isInt v && v > 0 && v <= 511);
    timedelta = text "([0-9]+(\\.[0-9]+)?(ms|[smhdwy]))+";
    IPv4Address = text ipv4;
    IPv6Address = text ipv6;
    IPv4Network = text "${ipv4}(/([0-9]|[12][0-9]|3[0-2]))?";
    IPv6Network = text "${ipv6}(/([0-9]|[1-9][0-9]|1[01][0-9]|12[0-8]))?";
  };

  hints = {
    Endpoint = "write address and port as one text, like \"0.0.0.0:443\" or \"[::]:443\"";
    timedelta = "write it like \"30d\", \"12h\" or \"1h30m\"";
    FileMode = "write it as octal text, like \"0770\"";
    bool = "write true or false, without quotes";
    int = "write a number, without quotes";
    str = "write it in quotes";
    Path = "write the path as text, like \"/var/lib/headwater\": a Nix path would be copied into the store";
  };

  # ── files ───────────────────────────────────────────────────────────────────────────────────
  # Every setting that ends in _file is a secret, but for these, which anybody may read. They, policies
  # and programs may be Nix paths and derivations.
  public = "(.*[._])?(cert_file|ca_file|hook)|(.*\\.)?policy\\.path";
  isPublic = path: match public path != null;
  isSecret = path: lib.hasSuffix "_file" path && !isPublic path;
  ofSecret = {
    allowed = "the path of a file outside the Nix store, as text, or the name of a credential";
    fix = "everybody reads the store: let sops-nix, agenix or you put the file on the machine and write its path in quotes; make a new secret if this one was in use";
  };
  inStore = values.inStore etc;
  secretFile = path: v: optional (isFile v || inStore v) (mistake path (show v) ofSecret.allowed ofSecret.fix);
  file = type: v: path:
    if isSecret path && (isFile v || isString v && inStore v) then secretFile path v
    else if isPublic path && isFile v then [ ]
    else plainValue type v path;

  # ── one value against its type ──────────────────────────────────────────────────────────────
  value = type: v: path:
    if v == null && type.null or false then [ ]
    else (special.${type.kind} or plainValue) type v path;

  special = {
    Path = file;
    section = type: section type.keys;
    list = type: v: path:
      if isList v then
        lib.concatLists (lib.genList (i: value type.each (builtins.elemAt v i) "${path}[${toString i}]") (length v))
      else
        [ (mistake path (show v) "a list" "write it as a list, even with one member") ];
    mapping = type: v: path:
      if isAttrs v then concatMap (key: value type.each v.${key} (join path key)) (attrNames v)
      else [ (mistake path (show v) type.allowed "write it as a set") ];
    either = type: v: path:
      optional (!builtins.any (each: value each v path == [ ]) type.either)
        (mistake path (show v) type.allowed "write one of these");
    # YAML 1.1, and so a file that was read from it, has false for a bare off.
    word = type: v: path:
      optional (!elem v type.words && !(v == false && elem "off" type.words))
        (mistake path (show v) type.allowed "choose one of these words");
  };

  plainValue = type: v: path:
    if !fits.${type.kind} v then
      [ (mistake path (show v) type.allowed (hints.${type.kind} or "write ${type.allowed}")) ]
    else
      optional (outside type v) (mistake path (show v) type.allowed "write a value within these limits");

  outside = type: v:
    (type ? least && v < type.least)
    || (type ? most && v > type.most)
    || (type ? pattern && match type.pattern v == null);

  section = keys: v: path:
    let
      said = key:
        if keys ? ${key} then value keys.${key} v.${key} (join path key)
        else [ (unknown keys (join path key) key) ];
      unsaid = key:
        optional (keys.${key}.required && !(v ? ${key}))
          (mistake (join path key) "nothing" keys.${key}.allowed "set it: it has no default");
    in
    if !isAttrs v then [ (mistake path (show v) "a set of keys" "write { … }") ]
    else concatMap said (attrNames v) ++ concatMap unsaid (attrNames keys);

  # ── keys that are not known ─────────────────────────────────────────────────────────────────
  plain = key: builtins.replaceStrings [ "_" "-" ] [ "" "" ] (lib.toLower key);
  alike = a: b: hasPrefix a b || hasPrefix b a;
  near = keys: key: filter (known: alike (plain known) (plain key)) (attrNames keys);
  unknown = keys: path: key:
    let close = near keys key; in
    mistake path "an unknown key" (concatStringsSep ", " (attrNames keys)) (
      if facts.renamed ? ${path} then facts.renamed.${path}
      else if close != [ ] then "did you mean ${show (head close)}?"
      else "remove it"
    );

  # ── what is left to be asked of settings of a wrong form ────────────────────────────────────
  bad = throw "services.headwater.settings: of a wrong form";
  # A list is one value; what lacks a key is no value at all.
  placeOf = m:
    let place = lib.splitString "." (head (match "([^[]*).*" m.path)); in
    if m.found == "nothing" then lib.take (length place - 1) place else place;
  poison = place: v:
    if place == [ ] || !isAttrs v || !(v ? ${head place}) then bad
    else v // { ${head place} = poison (lib.tail place) v.${head place}; };

  # Hosts to which clients go on speaking plain HTTP.
  isPrivate = host:
    host == "localhost"
    || match "(127|10)\\..*|192\\.168\\..*|172\\.(1[6-9]|2[0-9]|3[01])\\..*" host != null && text ipv4 host
    || match "\\[(::1|[fF][cCdD][0-9a-fA-F:]*)]" host != null;
  hasPassword = url:
    match "postgres(ql)?://[^@]*:[^@]*@.*" url != null
    || match ".*[?&][^=&]*(pass[^f]|secret|scram_)[^=&]*=.*" url != null;

  # libpq's parameters that name files with secrets.
  keyInStore = url:
    let
      plainUrl = builtins.replaceStrings [ "%2F" "%2f" ] [ "/" "/" ] url;
      found = match ".*[?&](passfile|sslkey)=([^&]*).*" plainUrl;
    in
    found != null && (builtins.hasContext url || inStore (builtins.elemAt found 1));

  # ── rules between keys ──────────────────────
  # A rule that needs a value of a wrong form says nothing: `attempt` gives an empty list for it.
  between = plan:
    let
      inherit (plan) attempt;
      at = plan.value;
      url = at [ "server_url" ];
      host = plan.hostOf url;
      mode = let word = at [ "tls" "mode" ]; in if word == false then "off" else word;
      server = key: at [ "derp" "server" key ];
      domain = at [ "tailnet" "base_domain" ];
      rule = broken: path: found: allowed: fix: attempt (optional broken (mistake path (show found) allowed fix));
      missing = key: rule (mode == "files" && at [ "tls" key ] == null)
        "tls.${key}" null
        "the path of a PEM file"
        "set it, or tls.mode to \"off\" behind a TLS proxy, \"local_ca\" for development";
    in
    lib.concatLists [
      (rule (match "https?://([A-Za-z0-9._-]+|\\[[0-9a-fA-F:]+])(:[0-9]+)?/?" url == null)
        "server_url" (if match ".*@.*" url != null then "(a login in the URL)" else url)
        "https://HOST or https://HOST:PORT"
        "write the URL that clients are given, without a path")
      (rule (mode != "off" && hasPrefix "http:" url)
        "server_url" url
        "an https URL while TLS is on"
        "write https://, or set tls.mode to \"off\"")
      (rule (mode == "off" && hasPrefix "http:" url && !isPrivate host)
        "server_url" url
        "an https URL for this host"
        "clients insist on TLS after an interruption: write https://, and let a proxy speak TLS")
      (rule (!server "enabled" && at [ "derp" "regions" ] == [ ])
        "derp" "no relay"
        "at least one relay"
        "turn derp.server.enabled on, or list the relays of others under derp.regions")
      (missing "cert_file")
      (missing "key_file")
      (rule (mode != "files" && (at [ "tls" "cert_file" ] != null || at [ "tls" "key_file" ] != null))
        "tls.mode" mode
        "\"files\" when certificate files are named"
        "set it to \"files\" or remove the files")
      (rule (at [ "listen" ] == [ ])
        "listen" [ ]
        "at least one HOST:PORT"
        "name an address, or leave the key out for port 443")
      (rule (at [ "listen_plain" ] != [ ] && mode == "off")
        "listen_plain" (at [ "listen_plain" ])
        "nothing when tls.mode is off"
        "without TLS every address of 'listen' is plain: put it there")
      (rule (at [ "proxy_protocol" ] && at [ "trusted_proxies" ] == [ ])
        "trusted_proxies" [ ]
        "at least one proxy with proxy_protocol"
        "name the proxies, or turn proxy_protocol off")
      (rule (host == domain || lib.hasSuffix ".${domain}" host)
        "tailnet.base_domain" domain
        "a domain that ${host} is not in"
        "nodes would ask MagicDNS for the server itself; choose another domain")
      (rule (hasPassword (at [ "database_url" ]))
        "database_url" "(a password in the URL)"
        "a URL without password"
        "put the password into 'database_password_file'")
      (rule (at [ "database_password_file" ] != null && !hasPrefix "postgresql" (at [ "database_url" ]))
        "database_password_file" "a file"
        "nothing with SQLite"
        "leave it out, or name the PostgreSQL database in 'database_url'")
      (rule (keyInStore (at [ "database_url" ]))
        "database_url" "(a key or password file in the store)" ofSecret.allowed ofSecret.fix)
      (rule (server "separate" && server "listen" == [ ])
        "derp.server.listen" [ ]
        "at least one HOST:PORT with 'separate'"
        "the addresses of the top level belong to the server")
      (rule (at [ "derp" "server" "mesh" "peers" ] != [ ] && at [ "derp" "server" "mesh" "key_file" ] == null)
        "derp.server.mesh.key_file" null
        "a key file when there are peers"
        "name a credential and set it in 'secrets'")
      (rule (at [ "dns" "override_local_dns" ] && at [ "dns" "nameservers" "global" ] == [ ])
        "dns.nameservers.global" [ ]
        "at least one resolver"
        "name one, or turn override_local_dns off")
    ];
in
{
  inherit inStore isSecret;
  # Mistakes of form: keys, types, limits. Only settings without any can be planned.
  form = settings: section facts.settings settings "";
  # Mistakes of meaning, in a plan.
  meaning = plan:
    let rules = between plan; in
    rules ++ filter (m: !builtins.any (rule: rule.path == m.path) rules) plan.mistakes;
  # Settings in which everything that `form` found is poison: who reads it fails.
  poisoned = settings: mistakes: lib.foldl' (before: m: poison (placeOf m) before) settings mistakes;

  message = m:
    let key = join "services.headwater.settings" m.path; in
    "${key}: found ${m.found}; allowed: ${m.allowed}; fix: ${m.fix}";
}
