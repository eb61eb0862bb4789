# What one site needs on a machine: services, sockets, credentials, ports. The same as
# appliance/deploy/plan.py, on Nix values; the parity tests hold the two together.
{ lib, facts }:
# `attempt` gives a list of mistakes, or an empty one where it needs a value of a wrong form.
{ settings, role ? "server", secrets ? { }, attempt ? (found: found) }:
let
  inherit (builtins) elemAt;
  inherit (lib) concatMap elem filter hasPrefix head match optional optionals unique;
  inherit (facts) constants directives;

  # A setting, or its default.
  value = place: lookup place settings facts.settings;
  lookup = place: given: keys:
    let key = keys.${head place}; rest = lib.tail place; inside = given.${head place} or null; in
    if rest == [ ] then given.${head place} or key.default
    else lookup rest (if inside == null then { } else inside) key.keys;
  server = key: value [ "derp" "server" key ];

  split = endpoint:
    let found = match "(.*):0*([0-9]+)" endpoint; host = head found; in
    {
      host = lib.removeSuffix "]" (lib.removePrefix "[" host);
      port = lib.toInt (builtins.elemAt found 1);
    };
  join = e: if match ".*:.*" e.host != null then "[${e.host}]:${toString e.port}" else "${e.host}:${toString e.port}";
  # Addresses as systemd reads them; an empty host means both families.
  addresses = list: unique (concatMap (text:
    let
      e = split text;
      hosts = if e.host == "" then [ "0.0.0.0" "::" ] else [ e.host ];
    in
    map (host: join { inherit host; inherit (e) port; }) hosts) list);
  isAddress = host: match "[0-9]+\\.[0-9]+\\.[0-9]+\\.[0-9]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*" host != null;
  isLoopback = host: hasPrefix "127." host || elem host [ "::1" "0:0:0:0:0:0:0:1" ];

  # ── sockets and services ────────────────────────────────────────────────────────────────────
  group = service: purpose: suffix: rest: {
    unit = if suffix == "" then service else "${service}-${suffix}";
    inherit service purpose;
    stream = [ ];
    datagram = [ ];
  } // rest;
  streams = service: purpose: suffix: list: group service purpose suffix {
    stream = addresses list;
    options = directives.stream_socket;
  };
  datagrams = service: group service "stun" "stun" {
    datagram = addresses (server "stun_listen");
    options = directives.datagram_socket;
  };
  used = filter (g: g.stream != [ ] || g.datagram != [ ]);
  mode =
    let m = value [ "socket" "mode" ]; in
    if builtins.isInt m then octal m else "0${lib.removePrefix "0" (lib.removePrefix "0o" m)}";
  octal = n: "0${toString (n / 64)}${toString (n / 8 - n / 64 * 8)}${toString (n - n / 8 * 8)}";

  main = constants.server_unit;
  relayUnit = constants.relay_unit;
  metrics = value [ "metrics" "listen" ];
  relayMetrics = if server "separate" then server "metrics_listen" else metrics;
  separate = server "enabled" && server "separate";
  serve = {
    unit = main;
    command = "serve";
    inherit (constants) description;
    after = [ "network-online.target" ];
    sockets = used (
      [
        (streams main "listen" "" (value [ "listen" ]))
        (streams main "plain" "plain" (value [ "listen_plain" ]))
        (group main "local" "local" {
          stream = [ (value [ "socket" "path" ]) ];
          options = directives.local_socket // { SocketMode = mode; };
        })
      ]
      ++ optional (metrics != null) (streams main "metrics" "metrics" [ metrics ])
      ++ optional (server "enabled" && !server "separate") (datagrams main)
    );
  };
  relay = after: {
    unit = relayUnit;
    command = "relay";
    description = "Headwater relay (DERP and STUN)";
    inherit after;
    # Beside the server, plain listeners and metrics.listen are the server's.
    sockets = used (
      [
        (streams relayUnit "listen" "" (if server "listen" != [ ] then server "listen" else value [ "listen" ]))
        (streams relayUnit "plain" "plain" (optionals (!server "separate") (value [ "listen_plain" ])))
      ]
      ++ optional (relayMetrics != null) (streams relayUnit "metrics" "metrics" [ relayMetrics ])
      ++ [ (datagrams relayUnit) ]
    );
  };
  services =
    if role == "relay" then [ (relay [ "network-online.target" ]) ]
    else [ serve ] ++ optional separate (relay [ "network-online.target" "${main}.service" ]);
  sockets = concatMap (s: s.sockets) services;
  openPorts = list:
    let
      endpoints = map split (filter (address: !hasPrefix "/" address) list);
      outside = filter (e: !isLoopback e.host) endpoints;
    in
    lib.sort (a: b: a < b) (unique (map (e: e.port) outside));

  # ── credentials ─────────────────────────────────────────────────────────────────────────────
  # A key with [] in it stands for each of a list.
  said = concatMap
    (key:
      let parts = lib.splitString "[]." key; in
      if builtins.length parts == 1 then [{ inherit key; value = value (lib.splitString "." key); }]
      else each (head parts) (elemAt parts 1))
    facts.secret_keys;
  each = list: key:
    let
      found = settings.${list} or [ ];
      entry = i: { key = "${list}[${toString i}].${key}"; value = (elemAt found i).${key} or null; };
    in
    attempt (builtins.genList entry (builtins.length found));
  wanted = filter (s: s.value != null && !hasPrefix "/" s.value) said;
  credentials = lib.listToAttrs
    (map (s: lib.nameValuePair s.value (secrets.${s.value} or "${constants.secrets_dir}/${s.value}")) wanted);

  # ── what a reload does not take over ────────────────────────────────────────────────────────
  cold = removeAttrs settings facts.reload.hot // {
    inside = lib.mapAttrs
      (section: keys: map (key: value (lib.splitString "." section ++ [ key ])) keys)
      facts.reload.cold_inside;
    tailnets = map (t: t.name or null) (settings.tailnets or [ ]);
  };

  # ── what cannot work in the sandbox ─────────────────────────────────────────────────────────
  mistake = path: found: allowed: fix: { inherit path allowed fix; found = builtins.toJSON found; };
  stateDir = value [ "state_dir" ];
  listens = [
    { key = "listen"; kind = "tcp"; list = value [ "listen" ]; }
    { key = "listen_plain"; kind = "tcp"; list = value [ "listen_plain" ]; }
    { key = "derp.server.listen"; kind = "tcp"; list = optionals (server "separate") (server "listen"); }
    {
      key = "derp.server.metrics_listen";
      kind = "tcp";
      list = optional (server "separate" && relayMetrics != null) relayMetrics;
    }
    { key = "metrics.listen"; kind = "tcp"; list = optional (metrics != null) metrics; }
    { key = "derp.server.stun_listen"; kind = "udp"; list = optionals (server "enabled") (server "stun_listen"); }
  ];
  wrongAddress = key: text:
    let e = split text; in
    optional (e.port == 0)
      (mistake key text "a port from 1 to 65535" "a box needs ports that its firewall knows: name one")
    ++ optional (e.host != "" && !isAddress e.host)
      (mistake key text "an IP address and a port" "write the address: names are not known yet when sockets are made");
  wrongAddresses = concatMap (l: attempt (concatMap (wrongAddress l.key) l.list)) listens;
  # Two sockets of one port cannot be bound if one address, or its family's wildcard, has both.
  claims = concatMap
    (l: attempt (concatMap (text: map (claimOf l) (addresses [ text ])) l.list))
    listens;
  claimOf = l: address: { inherit (l) key kind; } // split address;
  isIPv6 = host: match ".*:.*" host != null;
  meet = a: b:
    a.kind == b.kind && a.port == b.port && isIPv6 a.host == isIPv6 b.host
    && (a.host == b.host || elem a.host [ "0.0.0.0" "::" ] || elem b.host [ "0.0.0.0" "::" ]);
  clash = i:
    let
      claim = elemAt claims i;
      before = filter (meet claim) (builtins.genList (elemAt claims) i);
    in
    optional (before != [ ])
      (mistake claim.key (join claim) "an address that '${(head before).key}' does not use"
        "give one of them another port or address; a wildcard takes them all");
  database = value [ "database_url" ];
  dotted = path: match "(.*/)?\\.\\.(/.*)?" path != null;
  root = constants.state_root;
  wrongPlaces = concatMap attempt [
    (optional (!hasPrefix "${root}/" stateDir || dotted stateDir)
      (mistake "state_dir" stateDir "a directory below ${root}"
        "leave it out, or name a directory below ${root}; mount other disks there"))
    (optional (hasPrefix "sqlite:" database && (!hasPrefix "sqlite:///${stateDir}/" database || dotted database))
      (mistake "database_url" database "a file in state_dir"
        "leave it out, or put the database below ${stateDir}: nothing else is writable"))
    (optional (!hasPrefix "/" (value [ "socket" "path" ]))
      (mistake "socket.path" (value [ "socket" "path" ]) "an absolute path" "write a path that begins with /"))
  ];
  # Files that ProtectHome= and PrivateTmp= hide.
  files =
    said
    ++ each "oidc" "ca_file"
    ++ map (key: { inherit key; value = value (lib.splitString "." key); })
      [ "derp.server.mesh.ca_file" "tailnet.policy.path" ]
    ++ attempt (map (t: { key = "tailnets.policy.path"; value = t.policy.path or null; }) (settings.tailnets or [ ]));
  isHidden = path: builtins.any (place: path == place || hasPrefix "${place}/" path) facts.hidden_places;
  wrongFiles = concatMap
    (f: attempt (optional (f.value != null && isHidden f.value)
      (mistake f.key f.value "a place that the service sees"
        "put it elsewhere, not below ${lib.concatStringsSep ", " facts.hidden_places}")))
    files;
  wrongRole = attempt (optional (role == "relay" && server "separate")
    (mistake "derp.server.separate" true "false with role = \"relay\""
      "leave 'separate' out on a host that runs the relay only"));
in
{
  inherit attempt value services sockets credentials wanted;
  hostOf = url:
    let found = match "[a-z]+://(\\[[^]]*]|[^:/]*).*" url; in
    if found == null then "" else lib.toLower (head found);
  # Metrics are for a collector: whoever wants their port open says so in networking.firewall.
  tcpPorts = openPorts (concatMap (g: g.stream) (filter (g: g.purpose != "metrics") sockets));
  udpPorts = openPorts (concatMap (g: g.datagram) sockets);
  stateDirectory = lib.removePrefix "${constants.state_root}/" stateDir;
  restartDigest = builtins.hashString "sha256" (builtins.toJSON cold);
  mistakes =
    wrongAddresses
    ++ optionals (wrongAddresses == [ ]) (concatMap clash (builtins.genList (i: i) (builtins.length claims)))
    ++ wrongPlaces
    ++ wrongFiles
    ++ wrongRole;
}
