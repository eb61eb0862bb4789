# A stand-in for nixpkgs' `lib`, for machines that have Nix but no nixpkgs: as much of the module
# system and of its functions as our own modules use. Not a replacement: with HEADWATER_NIXPKGS set
# the same tests run on the real one.
let
  inherit (builtins)
    all any attrNames attrValues concatLists concatMap concatStringsSep elem elemAt filter foldl'
    functionArgs genList head isAttrs isBool isFloat isFunction isInt isList isPath isString length
    listToAttrs mapAttrs match removeAttrs replaceStrings sort stringLength substring tail toJSON
    ;

  tagged = tag: v: isAttrs v && (v._type or null) == tag;
  isDerivation = v: isAttrs v && (v.type or null) == "derivation";

  # ── lists and sets ──────────────────────────────────────────────────────────────────────────
  nameValuePair = name: value: { inherit name value; };
  genAttrs = names: f: listToAttrs (map (n: nameValuePair n (f n)) names);
  filterAttrs = keep: set: removeAttrs set (filter (n: !keep n set.${n}) (attrNames set));
  mapAttrsToList = f: set: map (n: f n set.${n}) (attrNames set);
  mapAttrs' = f: set: listToAttrs (mapAttrsToList f set);
  optional = condition: v: if condition then [ v ] else [ ];
  optionals = condition: vs: if condition then vs else [ ];
  optionalAttrs = condition: set: if condition then set else { };
  optionalString = condition: s: if condition then s else "";
  toList = v: if isList v then v else [ v ];
  unique = foldl' (seen: v: if elem v seen then seen else seen ++ [ v ]) [ ];
  recursiveUpdate = old: new:
    old // mapAttrs (n: v:
      if isAttrs v && isAttrs (old.${n} or null) && !isDerivation v then recursiveUpdate old.${n} v else v) new;
  attrByPath = path: default: set:
    if path == [ ] then set
    else if isAttrs set && set ? ${head path} then attrByPath (tail path) default set.${head path}
    else default;
  hasPrefix = p: s: substring 0 (stringLength p) s == p;
  hasInfix = p: s: length (builtins.split (self.escapeRegex p) s) > 1;
  hasSuffix = p: s: stringLength s >= stringLength p && substring (stringLength s - stringLength p) (stringLength p) s == p;
  removePrefix = p: s: if hasPrefix p s then substring (stringLength p) (stringLength s) s else s;
  removeSuffix = p: s: if hasSuffix p s then substring 0 (stringLength s - stringLength p) s else s;

  # ── properties of definitions ───────────────────────────────────────────────────────────────
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOrder = priority: content: { _type = "order"; inherit priority content; };

  # A definition's values that count, each with its priority and place in the order.
  settle = prio: order: v:
    if tagged "merge" v then concatMap (settle prio order) v.contents
    else if tagged "if" v then optionals v.condition (settle prio order v.content)
    else if tagged "override" v then settle v.priority order v.content
    else if tagged "order" v then settle prio v.priority v.content
    else [ { inherit prio order; value = v; } ];
  # Properties of a set become properties of its members, so that a member's name is known before
  # any condition is.
  sets = v:
    if tagged "merge" v then concatMap sets v.contents
    else if tagged "if" v then map (mapAttrs (_: mkIf v.condition)) (sets v.content)
    else if tagged "override" v then map (mapAttrs (_: mkOverride v.priority)) (sets v.content)
    else if tagged "order" v then map (mapAttrs (_: mkOrder v.priority)) (sets v.content)
    else [ v ];
  members = name: concatMap (set: optional (set ? ${name}) set.${name});

  # ── modules ─────────────────────────────────────────────────────────────────────────────────
  showOption = concatStringsSep ".";
  show = v: if isFunction v then "<function>" else if isDerivation v then "<derivation>" else toJSON v;

  evalModules = { modules, specialArgs ? { }, prefix ? [ ] }:
    let
      given = { lib = self; inherit (result) config options; } // specialArgs;
      call = f: f (mapAttrs (n: _: given.${n} or result.config._module.args.${n}) (functionArgs f));
      read = m: if isPath m || isString m then read (import m) else if isFunction m then read (call m) else m;
      load = m:
        let raw = read m; in
        map load' (raw.imports or [ ]) ++ [
          (if raw ? options || raw ? config
          then { options = raw.options or { }; config = raw.config or { }; free = raw.freeformType or null; }
          else { options = { }; config = removeAttrs raw [ "imports" "_file" "key" "freeformType" ]; free = raw.freeformType or null; })
        ];
      load' = m: load m;
      flat = vs: concatMap (v: if isList v then flat v else [ v ]) vs;
      base.options._module.args = mkOption { type = types.attrsOf types.raw; default = { }; };
      all' = flat (map load ([ base ] ++ modules));
      declared = path: trees:
        genAttrs (unique (concatMap attrNames trees)) (n:
          let found = members n trees; in
          if any (tagged "option") found
          then (if length found == 1 then head found else throw "The option `${showOption (path ++ [ n ])}' is already declared.")
          else declared (path ++ [ n ]) found);
      frees = filter (f: f != null) (map (m: m.free) all');
      result = {
        options = declared prefix (map (m: m.options) all');
        config = tree prefix result.options (concatMap (m: sets m.config) all') (if frees == [ ] then null else head frees);
      };
    in
    result;

  tree = path: options: defs: free:
    let
      known = mapAttrs (n: o:
        let here = path ++ [ n ]; found = members n defs; in
        if tagged "option" o then option here o found else tree here o (concatMap sets found) null) options;
      strange = filter (n: !(options ? ${n})) (unique (concatMap attrNames defs));
    in
    if strange == [ ] then known
    else if free == null then throw "The option `${showOption (path ++ [ (head strange) ])}' does not exist."
    else free.merge path (map (set: removeAttrs set (attrNames options)) defs) // known;

  option = path: o: found:
    let
      type = o.type or types.raw;
      merged = define path type (found ++ optional (o ? default) (mkOverride 1500 o.default));
    in
    if merged ? value then (o.apply or (v: v)) merged.value
    else throw "The option `${showOption path}' is used but not defined.";

  define = path: type: found:
    let
      counted = concatMap (settle 100 1000) found;
      best = foldl' (low: d: if d.prio < low then d.prio else low) 10000 counted;
      winners = sort (a: b: a.order < b.order) (filter (d: d.prio == best) counted);
      wrong = filter (d: !type.check d.value) winners;
    in
    if wrong != [ ] then throw "A definition for option `${showOption path}' is not of type `${type.description}'. Definition value: ${show (head wrong).value}"
    else if winners != [ ] then { value = type.merge path (map (d: d.value) winners); }
    else optionalAttrs (type ? empty) { value = type.empty; };

  mkOption = o: o // { _type = "option"; };

  # ── types ───────────────────────────────────────────────────────────────────────────────────
  one = path: vs:
    if length vs == 1 || all (v: v == head vs) vs then head vs
    else throw "The option `${showOption path}' has conflicting definition values: ${concatStringsSep ", " (map show vs)}";
  type = name: description: check: { inherit name description check; merge = one; getSubOptions = _: { }; };
  types = rec {
    raw = type "raw" "raw value" (_: true);
    anything = type "anything" "anything" (_: true) // {
      merge = path: vs:
        if all (v: isAttrs v && !isDerivation v) vs
        then (attrsOf anything).merge path vs
        else if all isList vs then concatLists vs else one path vs;
    };
    bool = type "bool" "boolean" isBool;
    int = type "int" "signed integer" isInt;
    float = type "float" "floating point number" isFloat;
    str = type "str" "string" isString;
    lines = str // { merge = _: concatStringsSep "\n"; };
    package = type "package" "package" isDerivation;
    path = type "path" "path" (v: isPath v || (isString v && hasPrefix "/" v) || isDerivation v);
    ints.between = low: high: type "int" "integer between ${toString low} and ${toString high} (both inclusive)" (v: isInt v && v >= low && v <= high);
    port = type "port" "16 bit unsigned integer; between 0 and 65535 (both inclusive)" (v: isInt v && v >= 0 && v <= 65535);
    enum = words: type "enum" "one of ${concatStringsSep ", " (map toJSON words)}" (v: elem v words);
    strMatching = pattern: type "str" "string matching the pattern ${pattern}" (v: isString v && match pattern v != null);
    addCheck = t: more: t // { check = v: t.check v && more v; };
    nullOr = t: t // {
      name = "nullOr";
      description = "null or ${t.description}";
      check = v: v == null || t.check v;
      merge = path: vs: if all (v: v == null) vs then null else t.merge path vs;
    };
    either = a: b: {
      name = "either";
      description = "${a.description} or ${b.description}";
      check = v: a.check v || b.check v;
      merge = path: vs: if all a.check vs then a.merge path vs else if all b.check vs then b.merge path vs else one path vs;
      getSubOptions = _: { };
    };
    oneOf = ts: foldl' either (head ts) (tail ts);
    listOf = t: {
      name = "listOf";
      description = "list of ${t.description}";
      check = isList;
      empty = [ ];
      merge = path: vs: concatMap (v: concatMap (each: let m = define path t [ each ]; in optional (m ? value) m.value) v) vs;
      inherit (t) getSubOptions;
    };
    attrsOf = t: {
      name = "attrsOf";
      description = "attribute set of ${t.description}";
      check = v: isAttrs v && !isDerivation v;
      empty = { };
      merge = path: vs:
        let
          found = concatMap sets vs;
          merged = genAttrs (unique (concatMap attrNames found)) (n: define (path ++ [ n ]) t (members n found));
        in
        mapAttrs (_: m: m.value) (filterAttrs (_: m: m ? value) merged);
      getSubOptions = path: t.getSubOptions (path ++ [ "<name>" ]);
    };
    submodule = modules: {
      name = "submodule";
      description = "submodule";
      check = v: isAttrs v || isFunction v;
      empty = (evalModules { modules = toList modules; }).config;
      merge = path: vs: removeAttrs
        (evalModules {
          prefix = path;
          modules = toList modules
            ++ [ { _module.args.name = if path == [ ] then "" else elemAt path (length path - 1); } ]
            ++ map (v: if isFunction v then v else { config = v; }) vs;
        }).config [ "_module" ];
      getSubOptions = path: removeAttrs (evalModules { prefix = path; modules = toList modules; }).options [ "_module" ];
    };
  };

  self = {
    inherit
      all any attrByPath attrNames attrValues concatLists concatMap concatStringsSep elem elemAt evalModules
      filter filterAttrs foldl' genAttrs genList hasInfix hasPrefix hasSuffix head isAttrs isBool isDerivation isFloat
      isFunction isInt isList isString length listToAttrs mapAttrs mapAttrs' mapAttrsToList match mkIf mkMerge
      mkOption mkOrder mkOverride nameValuePair optional optionalAttrs optionalString optionals recursiveUpdate
      removePrefix removeSuffix replaceStrings showOption sort tail toList types unique
      ;
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    mkBefore = mkOrder 500;
    mkAfter = mkOrder 1500;
    mkEnableOption = what: mkOption { type = types.bool; default = false; example = true; description = "Whether to enable ${what}."; };
    mkPackageOption = pkgs: name: { ... }: mkOption { type = types.package; default = pkgs.${name}; defaultText = literalExpression "pkgs.${name}"; description = "The ${name} package to use."; };
    inherit literalExpression;
    splitString = separator: s: filter isString (builtins.split (self.escapeRegex separator) s);
    escapeRegex = s: replaceStrings [ "." "[" "]" "(" ")" "*" "+" "?" "|" "^" "$" "{" "}" "\\" ] [ "\\." "[[]" "]" "\\(" "\\)" "\\*" "\\+" "\\?" "\\|" "\\^" "\\$" "\\{" "\\}" "\\\\" ] s;
    concatMapStringsSep = separator: f: vs: concatStringsSep separator (map f vs);
    getExe = p: "${p.outPath}/bin/${p.meta.mainProgram or p.pname}";
    toLower = replaceStrings
      [ "A" "B" "C" "D" "E" "F" "G" "H" "I" "J" "K" "L" "M" "N" "O" "P" "Q" "R" "S" "T" "U" "V" "W" "X" "Y" "Z" ]
      [ "a" "b" "c" "d" "e" "f" "g" "h" "i" "j" "k" "l" "m" "n" "o" "p" "q" "r" "s" "t" "u" "v" "w" "x" "y" "z" ];
    toInt = s: builtins.fromJSON (head (match "0*([0-9]+)" s));
    escapeShellArg = s: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString s)}'";
    escapeShellArgs = vs: concatStringsSep " " (map self.escapeShellArg vs);
    importTOML = file: builtins.fromTOML (builtins.readFile file);
    importJSON = file: builtins.fromJSON (builtins.readFile file);
    take = count: vs: genList (elemAt vs) (if count < length vs then count else length vs);
    getAttrs = names: set: genAttrs names (n: set.${n});
    licenses.bsd3 = { spdxId = "BSD-3-Clause"; };
    platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
  };
  literalExpression = text: { _type = "literalExpression"; inherit text; };
in
self
