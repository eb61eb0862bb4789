# A `pkgs` for NixOS's own module tree, where a checkout has the modules but not the packages: every
# name that the tree mentions is a set that looks like a derivation. Enough to evaluate, not to build.
{ lib, names }:
let
  place = name: "/nix/store/${builtins.substring 0 32 (builtins.hashString "sha256" name)}-${name}";
  fake = name: lib.makeOverridable
    (_: rec {
      type = "derivation";
      inherit name;
      pname = name;
      version = "1.0";
      system = "x86_64-linux";
      outPath = place name;
      drvPath = place "${name}.drv";
      outputs = [ "out" ];
      outputName = "out";
      meta = { mainProgram = name; outputsToInstall = [ "out" ]; description = name; };
      passthru = { };
      shellPath = "/bin/${name}";
      interpreter = "${outPath}/bin/${name}";
      overrideAttrs = _: fake name;
      withPackages = _: fake name;
      psqlSchema = "16";
      withoutJIT = fake name;
      withJIT = fake name;
      modules = [ ];
      out = fake name;
      bin = fake name;
      dev = fake name;
      lib = fake name;
      man = fake name;
      doc = fake name;
      info = fake name;
    })
    { };
  text = name: content: fake name // { text = content; };
  format = {
    type = with lib.types; let value = nullOr (oneOf [ bool int float str path (attrsOf value) (listOf value) ]) // { description = "value"; }; in value;
    generate = name: value: fake name // { inherit value; text = builtins.toJSON value; };
    lib = { types.atom = lib.types.anything; mkRaw = v: v; };
  };
  platform = lib.systems.elaborate "x86_64-linux";
  kernel = fake "linux" // {
    override = _: kernel;
    version = "6.12.0";
    modDirVersion = "6.12.0";
    features.efiBootStub = true;
    config = { isYes = _: true; isNo = _: false; isEnabled = _: true; isModule = _: true; isSet = _: true; };
    kernelOlder = _: false;
    kernelAtLeast = _: true;
    target = "bzImage";
    buildDTBs = false;
    commonModules = [ ];
  };
  kernelPackages = lib.makeExtensible (_: { inherit kernel; kernelOlder = _: false; kernelAtLeast = _: true; });
  # Names that the tree makes up while it runs.
  self = lib.genAttrs (names ++ [ "fish" "xonsh" "zsh" ]) fake // {
    _type = "pkgs";
    __splicedPackages = self;
    inherit lib;
    path = ./.;
    config = { };
    overlays = [ ];
    system = "x86_64-linux";
    stdenv = fake "stdenv" // {
      hostPlatform = platform;
      buildPlatform = platform;
      targetPlatform = platform;
      cc = fake "gcc";
      mkDerivation = a: fake (a.name or a.pname or "made");
      shell = "/bin/sh";
    } // lib.filterAttrs (n: _: lib.hasPrefix "is" n) platform;
    hostPlatform = platform;
    buildPackages = self;
    pkgsBuildBuild = self;
    pkgsStatic = self;
    pkgsi686Linux = self;
    appendOverlays = _: self;
    extend = _: self;
    formats = lib.genAttrs [ "json" "yaml" "toml" "ini" "iniWithGlobalSection" "keyValue" "elixirConf" "javaProperties" "hocon" "gitIni" "php" "libconfig" "pythonVars" "systemd" "lua" "xml" "cdn" "nixConf" "hcl1" "plist" ] (_: _: format);
    writeText = text;
    writeTextFile = a: text a.name a.text;
    writeTextDir = name: text (baseNameOf name);
    writeScript = text;
    writeScriptBin = text;
    writeShellScript = text;
    writeShellScriptBin = text;
    writeShellApplication = a: text a.name a.text;
    writers = fake "writers" // { writeNginxConfig = text; };
    concatText = name: _: fake name;
    runCommand = name: environment: content: text name content // environment;
    runCommandLocal = name: _: text name;
    runCommandCC = name: _: text name;
    runCommandWith = a: text a.name;
    buildEnv = a: fake a.name;
    symlinkJoin = a: fake a.name;
    linkFarm = name: _: fake name;
    replaceVars = file: _: fake (baseNameOf (toString file));
    replaceVarsWith = a: fake (a.name or (baseNameOf (toString a.src)));
    substituteAll = a: fake (a.name or (baseNameOf (toString a.src)));
    callPackage = _: _: fake "called";
    makeSetupHook = _: _: fake "hook";
    makeInitrd = _: fake "initrd";
    makeInitrdNG = _: fake "initrd";
    makeModulesClosure = _: fake "modules";
    makeDesktopItem = _: fake "desktop";
    aggregateModules = _: fake "modules";
    closureInfo = _: fake "closure";
    linuxPackages = kernelPackages;
    linuxPackages_latest = kernelPackages;
    linuxPackagesFor = _: kernelPackages;
    linuxKernel = { packages = { }; kernels = { }; };
    python3 = fake "python3" // { pkgs = self.python3Packages; withPackages = _: fake "python3"; };
    python3Packages = lib.genAttrs (names ++ [ "aiohttp" ]) fake;
    perl = fake "perl" // { withPackages = _: fake "perl"; };
    perlPackages = lib.genAttrs [ "ConfigIniFiles" "FileSlurp" "NetDBus" "JSON" "XMLTwig" ] fake;
    glibcLocales = fake "glibc-locales";
    headwater = fake "headwater";
    systemd = fake "systemd" // {
      kmod = fake "kmod";
      interfaceVersion = 2;
    } // lib.genAttrs [
      "withApparmor" "withAudit" "withBootloader" "withCoredump" "withCryptsetup" "withEfi" "withFido2"
      "withHostnamed" "withImportd" "withKmod" "withLocaled" "withLogind" "withMachined" "withNetworkd"
      "withNss" "withOomd" "withPam" "withPolkit" "withPortabled" "withRemote" "withRepart" "withResolved"
      "withSysupdate" "withSysusers" "withTimedated" "withTimesyncd" "withTpm2Tss" "withTpm2Units"
      "withUserDb" "withUtmp"
    ] (_: true) // { withHomed = false; };
  };
in
self
