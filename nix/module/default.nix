# `services.headwater`: a whole Headwater box. One file per concern; what they share is computed once,
# here, and read by them as `config.services.headwater.made`. It is no argument of modules: those
# share their names with the flake inputs that people hand on as `specialArgs`.
{ config, lib, pkgs, ... }:
let
  facts = import ../facts.nix;
  cfg = config.services.headwater;
  values = import ../values.nix { inherit lib; };
  check = import ../check.nix { inherit lib facts; inherit (config.environment) etc; };
  makePlan = given: import ../plan.nix { inherit lib facts; } ({ inherit (cfg) role; } // given);

  form = check.form cfg.settings;
  # Settings of a wrong form cannot be planned; the evaluation then goes on without them, as far as
  # the assertions, which say what is wrong.
  settings = if form == [ ] then values.plain cfg.settings else { };
  plan = makePlan { inherit settings; secrets = lib.filterAttrs (_: builtins.isString) cfg.secrets; };
  # What is wrong in meaning although something else is wrong in form.
  rest = makePlan {
    settings = values.plain (check.poisoned cfg.settings form);
    attempt = found:
      let tried = builtins.tryEval (builtins.deepSeq found found); in
      lib.optionals tried.success tried.value;
  };
in
{
  imports = [
    ./settings.nix
    ./service.nix
    ./relay.nix
    ./sockets.nix
    ./firewall.nix
    ./secrets.nix
    ./certificate.nix
    ./database.nix
    ./upgrade.nix
  ];

  options.services.headwater = {
    enable = lib.mkEnableOption "Headwater, a control server for Tailscale clients";
    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.headwater or (pkgs.callPackage ../package.nix { });
      defaultText = lib.literalExpression "pkgs.headwater, or else the package of this checkout, made of pkgs";
      description = "The package to use.";
    };
    made = lib.mkOption {
      type = lib.types.raw;
      internal = true;
      visible = false;
      readOnly = true;
      description = "What the files of the module share.";
    };
  };

  config.services.headwater.made = {
    inherit facts plan settings;
    inherit (check) inStore isSecret;
    inherit (values) show;
    isPlanned = form == [ ];
    mistakes = map check.message (form ++ check.meaning (if form == [ ] then plan else rest));
    unit = import ./unit.nix { inherit lib facts plan cfg; };
  };
}
