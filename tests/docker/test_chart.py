"""The Helm chart, rendered with its values and with others: what Kubernetes is asked for."""

import copy
import json
import os
import re
import subprocess

import kubernetes_validate
import pytest
import yaml

import helm_template
from dockerfile import ROOT

CHART = ROOT / "docker" / "helm" / "pbserve"
TEMPLATES = sorted((CHART / "templates").glob("*.yaml"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
META = yaml.safe_load((CHART / "Chart.yaml").read_text())
# The longest prefill that was measured: 1,000,000 tokens on an H200 (README.md).
LONGEST_PREFILL_S = 87.3


def render(**changes):
    """{kind: object} with values at dotted paths, written with __ for the dot."""
    values = copy.deepcopy(VALUES)
    for path, value in changes.items():
        *folders, name = path.split("__")
        at = values
        for folder in folders:
            at = at[folder]
        assert name in at, f"values.yaml has no {path}"
        at[name] = value
    context = {"Values": values, "Release": {"Name": "llm", "Namespace": "ns", "Service": "Helm"},
               "Chart": {"AppVersion": META["appVersion"]}}
    objects = {}
    for template in [*TEMPLATES, CHART / "templates" / "NOTES.txt"]:
        text = helm_template.render(template.read_text(), context)
        if template.suffix == ".yaml":
            for document in yaml.safe_load_all(text):
                if document is not None:
                    objects[document["kind"]] = document
    return objects


def pod(objects):
    return objects["Deployment"]["spec"]["template"]


def container(objects):
    return pod(objects)["spec"]["containers"][0]


@pytest.fixture(scope="module")
def default():
    return render()


def test_default_values_give_a_deployment_and_a_service(default):
    assert set(default) == {"Deployment", "Service"}
    for item in default.values():
        assert item["metadata"]["name"] == "llm"
        assert item["apiVersion"] == {"Deployment": "apps/v1", "Service": "v1"}[item["kind"]]


EVERYTHING = {"model__claim": "weights", "model__servedName": "m", "extraArgs": ["--set", "a=b"],
              "apiKeysSecret": "s", "tlsSecret": "t", "tlsClientCa": True,
              "kvEvents__enabled": True,
              "imagePullSecrets": [{"name": "r"}], "gpus": 0,
              "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H200"}, "tolerations": []}


@pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["default", "everything"])
@pytest.mark.parametrize("version", ["1.27", "1.34"])
def test_kubernetes_takes_the_objects(changes, version):
    """By its published schemas, where unknown fields are errors."""
    for item in render(**changes).values():
        kubernetes_validate.validate(item, version, strict=True)


def test_the_schemas_refuse_what_kubernetes_would(default):
    wrong = copy.deepcopy(default["Deployment"])
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34", strict=True)


def test_every_value_is_used():
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    used = set(re.findall(r"\.Values\.([\w.]+)", text))

    def leaves(values, prefix=""):
        for name, value in values.items():
            path = prefix + name
            if isinstance(value, dict) and value and path not in used:
                yield from leaves(value, path + ".")
            else:
                yield path

    assert set(leaves(VALUES)) == used


def test_selectors_meet_the_pods(default):
    labels = pod(default)["metadata"]["labels"].items()
    assert default["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert default["Service"]["spec"]["selector"].items() <= labels
    monitor = render(podMonitor__enabled=True)["PodMonitor"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels


def test_labels_of_llm_d(default):
    labels = pod(default)["metadata"]["labels"]
    assert labels["llm-d.ai/engine-type"] == "pbserve"
    assert re.fullmatch(r"\d+-\d+", labels["llm-d.ai/context-length-range"])
    for value in labels.values():  # what Kubernetes takes as a label
        assert isinstance(value, str) and re.fullmatch(r"[\w.-]{1,63}", value), value


def test_probes(default):
    probes = {name: container(default)[name + "Probe"]["httpGet"]
              for name in ("startup", "readiness", "liveness")}
    assert [probe["path"] for probe in probes.values()] == ["/ready", "/ready", "/health"]
    ports = {port["name"] for port in container(default)["ports"]}
    assert {probe["port"] for probe in probes.values()} == {"admin"} <= ports
    startup = container(default)["startupProbe"]
    # 16 GB at 20 MB/s, a slow network disk, take 13 minutes.
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 800


def test_the_grace_period_is_above_the_longest_prefill(default):
    grace_s = pod(default)["spec"]["terminationGracePeriodSeconds"]
    flags = dict(arg.split("=") for arg in container(default)["args"] if "=" in arg)
    shutdown_s, delay_s = int(flags["--shutdown-timeout"]), int(flags["--drain-delay"])
    assert grace_s > shutdown_s + delay_s and shutdown_s > LONGEST_PREFILL_S and delay_s > 0


def test_the_gpu_and_the_device_go_together(default):
    assert container(default)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "--device=cuda" in container(default)["args"]
    cpu = render(gpus=0, device="cpu", image__tag="cpu")
    assert "nvidia.com/gpu" not in container(cpu)["resources"]["limits"]
    assert "--device=cpu" in container(cpu)["args"]


def test_flags_are_ones_that_the_program_knows():
    objects = render(model__servedName="m", tlsSecret="t", tlsClientCa=True, kvEvents__enabled=True,
                     extraArgs=["--strict-params", "--set", "pbs.span=0"])
    text = subprocess.run([os.environ["PBSERVE_BINARY"], "--help"], capture_output=True, text=True,
                          check=True).stdout
    known = set(re.findall(r"(?:^\s+|,)(--[\w-]+)", text, re.MULTILINE))
    args = container(objects)["args"]
    assert {arg.split("=")[0] for arg in args if arg.startswith("--")} <= known
    assert args[-3:] == ["--strict-params", "--set", "pbs.span=0"]
    assert all(isinstance(arg, str) for arg in args)


def test_keys_come_from_a_secret_only():
    assert "env" not in container(render())
    (variable,) = container(render(apiKeysSecret="keys-of-llm"))["env"]
    assert variable["name"] == "PBSERVE_API_KEYS"
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "keys-of-llm", "key": "keys"}


def test_a_model_comes_from_a_claim():
    spec = pod(render(model__claim="weights", model__path="/models/claim/Qwen3-8B"))["spec"]
    (mount,) = spec["containers"][0]["volumeMounts"]
    (volume,) = spec["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == "weights"
    assert mount["name"] == volume["name"] and mount["readOnly"]
    assert any(arg.startswith(f"--model={mount['mountPath']}/")
               for arg in spec["containers"][0]["args"])
    assert "volumes" not in pod(render())["spec"]


def test_tls_comes_from_a_secret():
    spec = pod(render(tlsSecret="llm-tls", tlsClientCa=True))["spec"]
    (mount,) = spec["containers"][0]["volumeMounts"]
    (volume,) = spec["volumes"]
    assert volume["secret"] == {"secretName": "llm-tls"} and mount["name"] == volume["name"]
    files = {arg.split("=")[0]: arg.split("=")[1] for arg in spec["containers"][0]["args"]
             if arg.startswith("--ssl-")}
    assert files == {"--ssl-certfile": f"{mount['mountPath']}/tls.crt",
                     "--ssl-keyfile": f"{mount['mountPath']}/tls.key",
                     "--ssl-ca-certs": f"{mount['mountPath']}/ca.crt"}


def test_kv_events_are_off_unless_asked_for(default):
    assert "kv-events" not in str(default)
    with_events = container(render(kvEvents__enabled=True))
    (text,) = [arg.split("=", 1)[1] for arg in with_events["args"] if "kv-events-config" in arg]
    events = json.loads(text)
    assert events.pop("enable_kv_cache_events") is True
    ports = {port["name"]: port["containerPort"] for port in with_events["ports"]}
    assert events == {"endpoint": f"tcp://*:{ports['kv-events']}",
                      "replay_endpoint": f"tcp://*:{ports['kv-replay']}"}
    (variable,) = with_events["env"]
    assert variable == {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}


def test_the_container_is_confined(default):
    assert pod(default)["spec"]["securityContext"]["runAsNonRoot"]
    confined = container(default)["securityContext"]
    assert confined["readOnlyRootFilesystem"] and not confined["allowPrivilegeEscalation"]
    assert confined["capabilities"] == {"drop": ["ALL"]}


def test_pod_monitor_scrapes_a_port_of_the_pod(default):
    (endpoint,) = render(podMonitor__enabled=True)["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] == "/metrics"
    assert endpoint["port"] in {port["name"] for port in container(default)["ports"]}


@pytest.mark.parametrize("wrong", [
    "{{ .Values.none }}", "{{ if .Values.a }}", "{{ end }}", "{{ include \"x\" . }}",
    "{{ .Values.a | upper }}", "{{ .Values"])
def test_the_renderer_refuses_what_it_does_not_know(wrong):
    with pytest.raises(helm_template.TemplateError):
        helm_template.render(wrong, {"Values": {"a": 1}})


def test_the_renderer_renders():
    text = "a: {{ .Values.a | quote }}\n{{- if .Values.b }}\nb\n{{- end }}" \
           "\n{{- range .Values.c }}\n- {{ . }}\n{{- end }}\n"
    context = {"Values": {"a": 1, "b": [], "c": ["x", "y"]}}
    assert helm_template.render(text, context) == 'a: "1"\n- x\n- y\n'
    either = "{{ if or .Values.b .Values.a }}yes{{ end }}{{ if or .Values.b .Values.b }}no{{ end }}"
    assert helm_template.render(either, context) == "yes"
