# Stands in for the flakes nixpkgs and disko: as much of them as our flake.nix touches. Packages are
# real derivations that nobody builds; a NixOS configuration is forced to its last unit, and fails
# like a real one if an assertion does.
{
  outputs = { self }:
    let
      lib = import ./minilib.nix // {
        nixosSystem = { modules, specialArgs ? { } }:
          let
            box = import ./stub/eval.nix { inherit lib specialArgs; modules = modules ++ [ ./hardware.nix ]; };
            toplevel = builtins.seq (force box.units) (made "toplevel");
          in
          {
            inherit (box) options;
            pkgs.stdenv.hostPlatform.isx86 = box.config.nixpkgs.hostPlatform == "x86_64-linux";
            config = box.config // {
              system = box.config.system // {
                build.images = lib.genAttrs [ "iso" "qemu" "qemu-efi" "raw" "raw-efi" "openstack" ]
                  (variant: builtins.seq (force box.units) (made "image-${variant}"));
                build.toplevel = if box.failed == [ ] then toplevel else throw (builtins.concatStringsSep "\n" box.failed);
              };
            };
          };
        fileset = { toSource = { root, fileset }: builtins.seq (force fileset) root; unions = paths: paths; };
        fakeHash = "";
        trivial.release = "26.11";
      };
      made = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; } // {
        pname = name;
        meta.mainProgram = name;
        dist = made "${name}-dist";
      };
      # Evaluates a value to its last part, but for what is inside packages.
      force = value:
        if builtins.isList value then builtins.foldl' (before: each: builtins.seq (force each) before) null value
        else if builtins.isAttrs value then (if value ? drvPath then value.name else force (builtins.attrValues value))
        else value;
      # A function that checks what it is called with, as far as it is asked for here.
      builder = kind: attributes: builtins.seq (force attributes) (made (attributes.pname or attributes.name or kind) // {
        version = attributes.version or "0";
        meta = attributes.meta or { };
      });
      python = rec {
        pkgs = packages;
        withPackages = choose: builtins.seq (force (choose packages)) (made "python3");
        # The names that pyproject.toml has; whether nixpkgs has them too nobody can see from here.
        packages = lib.genAttrs (lib.importJSON ./names.json)
          made // { buildPythonApplication = builder "python"; };
      };
      pkgs = system: self':
        let
          all = lib.genAttrs [ "curl" "cacert" "deadnix" "git" "gnumake" "go" "netcat-openbsd" "nftables" "nix" "nixfmt" "nixfmt-tree" "openssl" "statix" ] made // {
            inherit lib system;
            python3 = python;
            dockerTools.buildLayeredImage = builder "oci";
            writeTextDir = name: text: builtins.seq text (made (baseNameOf name));
            buildGoModule = builder "go";
            mkShell = builder "shell";
            runCommand = name: attributes: text: builtins.seq (force attributes) (builtins.seq text (made name));
            writeText = name: text: builtins.seq text (made name);
            writeShellScript = name: text: builtins.seq text (made name);
            testers.runNixOSTest = test: builtins.seq
              (force (lib.mapAttrs (_: node: (import ./stub/eval.nix { inherit lib; modules = [ node ]; }).units) test.nodes))
              (builtins.seq test.testScript (made test.name));
            callPackage = file: given:
              let f = if builtins.isFunction file then file else import file; in
              f (builtins.intersectAttrs (builtins.functionArgs f) all // given);
          };
        in
        all;
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: pkgs system self);
      nixosModules.disko = { };
    };
}
