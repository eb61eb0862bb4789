# The site file: settings as in docs/configuration.md, checked while the configuration is evaluated
# and again, by the program itself, when the file is built.
{ config, lib, pkgs, headwater, ... }:
let
  inherit (lib) mkOption types;
  facts = import ../facts.nix;
  cfg = config.services.headwater;
  format = pkgs.formats.json { };

  key = place: lib.foldl' (keys: name: (keys.keys or keys).${name}) facts.settings place;
  said = description: type: type // { inherit description; };
  endpoint = said "address and port as one text, like \"0.0.0.0:443\" or \"[::]:443\"" types.str;
  known = place: type: mkOption ({
    inherit type;
    description = (key place).meaning;
  } // lib.optionalAttrs (!(key place).required) { default = (key place).default; });

  plain = format.generate "headwater.json" cfg.settings;
in
{
  options.services.headwater = {
    settings = mkOption {
      description = ''
        The site file, key by key as in docs/configuration.md. Any key of it may be set; the ones
        listed here are those that the module itself needs to know. A file in TOML or JSON can be
        read: `settings = lib.importTOML ./site.toml`.
      '';
      default = { };
      type = types.submodule {
        freeformType = format.type;
        options = {
          server_url = known [ "server_url" ] (said "URL like \"https://hw.example.com\"" types.str);
          listen = known [ "listen" ] (types.listOf endpoint);
          listen_plain = known [ "listen_plain" ] (types.listOf endpoint);
          state_dir = known [ "state_dir" ] (said "path as text, below /var/lib" types.str);
        };
      };
      example = {
        server_url = "https://hw.example.com";
        tls.cert_file = "/var/lib/acme/hw.example.com/fullchain.pem";
        tls.key_file = "/var/lib/acme/hw.example.com/key.pem";
        tailnet.base_domain = "tailnet.example.net";
      };
    };
    configFile = mkOption {
      type = types.path;
      description = "The site file that the server reads; made from `settings` unless set.";
      defaultText = lib.literalExpression "made from settings, and checked";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = map (message: { assertion = false; inherit message; }) headwater.mistakes;

    # `config check` reads nothing but the file, so it can run where the file is made.
    services.headwater.configFile = lib.mkDefault (pkgs.runCommand "headwater-config.json"
      {
        nativeBuildInputs = [ cfg.package ];
        site = plain;
        passthru.settings = cfg.settings;
      } ''
      cp "$site" site.json
      headwater config check site.json
      cp site.json "$out"
    '');
    environment.etc."headwater/config.json".source = cfg.configFile;
  };
}
