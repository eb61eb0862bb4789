# The site file: settings as in docs/configuration.md, checked while the configuration is evaluated
# and again, by the program itself, when the file is built.
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  facts = import ../facts.nix;
  cfg = config.services.headwater;
  format = pkgs.formats.json { };

  key = place: lib.foldl' (keys: name: (keys.keys or keys).${name}) facts.settings place;
  # Any value is taken here, so that a wrong one is refused with the others, by its key and its fix.
  known = place: kind: mkOption ({
    type = value // { description = kind; };
    description = (key place).meaning;
  } // lib.optionalAttrs (!(key place).required) { default = (key place).default; });
  value = with types; oneOf [ (listOf raw) str raw ];

  plain = format.generate "headwater.json" cfg.made.settings;
  file = pkgs.runCommand "headwater-config.json"
    {
      nativeBuildInputs = [ cfg.package ];
      site = plain;
      passthru.settings = cfg.made.settings;
    } ''
    cp "$site" site.json
    headwater config check site.json
    cp site.json "$out"
  '';
in
{
  options.services.headwater = {
    settings = mkOption {
      description = ''
        The site file, key by key as in docs/configuration.md. Any key of it may be set; the ones
        listed here are those that the module itself needs to know. A file in TOML or JSON can be
        read: `settings = lib.importTOML ./site.toml`. Policies, certificates and authorities may be
        Nix paths or derivations; secrets may not.
      '';
      default = { };
      type = types.submodule {
        freeformType = format.type;
        options = {
          server_url = known [ "server_url" ] "URL like \"https://hw.example.com\"";
          listen = known [ "listen" ] "list of address and port as one text, like \"0.0.0.0:443\" or \"[::]:443\"";
          listen_plain = known [ "listen_plain" ] "list of address and port as one text, like \"0.0.0.0:80\" or \"[::]:80\"";
          state_dir = known [ "state_dir" ] "path as text, below /var/lib";
        };
      };
      example = {
        server_url = "https://hw.example.com";
        tls.cert_file = "/var/lib/acme/hw.example.com/fullchain.pem";
        tls.key_file = "/var/lib/acme/hw.example.com/key.pem";
        tailnet.base_domain = "tailnet.example.net";
      };
    };
    # Refused since it cannot work: ports, secrets and the firewall follow from what Nix can read.
    configFile = mkOption {
      type = types.raw;
      default = null;
      internal = true;
      visible = false;
      description = "Not there any more.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = map (message: { assertion = false; inherit message; }) cfg.made.mistakes ++ [
      {
        assertion = cfg.configFile == null;
        message = "services.headwater.configFile: found a file; allowed: nothing: sockets, ports and secrets follow from the settings; fix: services.headwater.settings = lib.importTOML ./site.toml (or lib.importJSON; YAML: headwater config show -o json site.yaml > site.json)";
      }
    ];

    # `config check` reads nothing but the file, so it can run where the file is made.
    environment.etc."headwater/config.json".source = file;
    systemd.services = lib.listToAttrs (map
      (one: lib.nameValuePair one.unit { reloadTriggers = [ file ]; })
      cfg.made.plan.services);
  };
}
