{{/* Name of all objects: the release's, where that says pgimbal. Room for "-store" and a hash. */}}
{{- define "pgimbal.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" (.Release.Name | trunc 42 | trimSuffix "-") .Chart.Name }}
{{- end }}
{{- end }}

{{/* Labels by which Services and policies find the pods; they never change. */}}
{{- define "pgimbal.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of all objects. */}}
{{- define "pgimbal.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "pgimbal.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pgimbal.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "pgimbal.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The Secret of the store. */}}
{{- define "pgimbal.storeSecret" -}}
{{- default (printf "%s-store" (include "pgimbal.fullname" .)) .Values.store.secret }}
{{- end }}

{{/* The Secret with the certificate that clients are shown; empty where there is none. */}}
{{- define "pgimbal.tlsSecret" -}}
{{- with .Values.clientTls }}
{{- if .existingSecret }}
{{- .existingSecret }}
{{- else if .certManager.enabled }}
{{- include "pgimbal.fullname" $ }}-tls
{{- end }}
{{- end }}
{{- end }}

{{/* The tokens of the page: the option of [http] with its file, and the key of the Secret. */}}
{{- define "pgimbal.pageKeys" -}}
{{- with .Values.page }}
{{- if .existingSecret }}
{{- if not (or .adminKey .tokenKey) }}
{{- fail "page.adminKey: the Secret has a token under this key or under page.tokenKey" }}
{{- end }}
{{- with .adminKey }}
admin_token_file: {{ . | quote }}
{{- end }}
{{- with .tokenKey }}
token_file: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "pgimbal.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- .repository }}@{{ .digest }}
{{- else }}
{{- .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{/* The whole seconds, rounded up, of a duration as pgimbal writes it: 5s, 500ms, 1min. */}}
{{- define "pgimbal.seconds" -}}
{{- $text := toString . | replace " " "" }}
{{- $units := dict "us" 0.000001 "ms" 0.001 "s" 1.0 "min" 60.0 "h" 3600.0 "d" 86400.0 }}
{{- if not (regexMatch "^[0-9]+([.][0-9]+)?(us|ms|s|min|h|d)$" $text) }}
{{- fail (printf "%q is no duration: a number and us, ms, s, min, h or d" $text) }}
{{- else }}
{{- $number := regexFind "^[0-9.]+" $text | float64 }}
{{- ceil (mulf $number (get $units (regexFind "[a-z]+$" $text))) | int }}
{{- end }}
{{- end }}

{{/* Kubernetes kills a pod after so many seconds: the drain, and time to end the process. */}}
{{- define "pgimbal.gracePeriod" -}}
{{- $seconds := 5 }}
{{- range $key, $usual := dict "drain_delay" "5s" "shutdown_grace" "25s" }}
{{- $own := get $.Values.config $key }}
{{- if not $own }}
{{- $own = $usual }}
{{- end }}
{{- $seconds = add $seconds (include "pgimbal.seconds" $own | int) }}
{{- end }}
{{- $seconds }}
{{- end }}

{{/* Request and limit of memory. A waiting client may have 80 KB of what it has sent in there, so
that 96 KiB for each suffice also while a primary is away. */}}
{{- define "pgimbal.memory" -}}
{{- if .Values.resources.requests.memory }}
{{- .Values.resources.requests.memory }}
{{- else }}
{{- $clients := default 1000 .Values.config.max_client_conn | int }}
{{- printf "%dMi" (add 128 (div (add (mul $clients 96) 1023) 1024)) }}
{{- end }}
{{- end }}

{{/* The DNS name with the addresses of all replicas. */}}
{{- define "pgimbal.peersName" -}}
{{- printf "%s-peers.%s.svc" (include "pgimbal.fullname" .) .Release.Namespace }}
{{- end }}

{{/* Fails where a secret stands in a table (key "table") or below it; "path" says where that is. */}}
{{- define "pgimbal.refuseSecrets" -}}
{{- $secret := list "password" "server_password" "probe_password" "accept_also" "token" "admin_token" "secret_id" "deployment_key" "deployment_key_previous" }}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- include "pgimbal.refuseSecrets" (dict "path" (printf "%s.%s" $path $key) "table" $value) }}
{{- else if and (has $key $secret) (not (kindIs "invalid" $value)) }}
{{- fail (printf "%s.%s would stand in a ConfigMap: put it into a Secret, and name that in secretEnv, or use password_file with secretFiles" $path $key) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The configuration as YAML: the values' with what follows from the others. */}}
{{- define "pgimbal.config" -}}
{{- $values := .Values }}
{{- $config := deepCopy $values.config }}
{{- include "pgimbal.refuseSecrets" (dict "path" "config" "table" $config) }}
{{- range $key, $instead := dict "listen" "ports" "read_listen" "readService" "http_listen" "ports.http" "max_replicas" "replicas" "proxy_protocol" "service" }}
{{- if hasKey $config $key }}
{{- fail (printf "config.%s: the chart sets it, from %s" $key $instead) }}
{{- end }}
{{- end }}
{{- range $key, $name := dict "databases" "PGIMBAL_DATABASES__" "users" "PGIMBAL_USERS__" }}
{{- $given := not (empty (get $config $key)) }}
{{- range $values.secretEnv }}
{{- if or (hasPrefix $name .name) (eq .name "PGIMBAL_UPSTREAM") }}
{{- $given = true }}
{{- end }}
{{- end }}
{{- if not $given }}
{{- fail (printf "config.%s: there is none, and pgimbal would not start" $key) }}
{{- end }}
{{- end }}
{{- $at := $values.listenAddress }}
{{- $listen := list (printf "%s:%d" $at (int $values.ports.client)) }}
{{- if $values.readService.enabled }}
{{- $read := printf "%s:%d" $at (int $values.ports.read) }}
{{- $listen = append $listen $read }}
{{- $_ := set $config "read_listen" (list $read) }}
{{- end }}
{{- $_ := set $config "listen" $listen }}
{{- $_ := set $config "http_listen" (printf "%s:%d" $at (int $values.ports.http)) }}
{{- $kind := $values.store.kind }}
{{- if not (has $kind (list "kubernetes" "vault" "memory")) }}
{{- fail (printf "store.kind is kubernetes, vault or memory, not %q" $kind) }}
{{- end }}
{{- /* maxSurge is one more. Without a store that they share, replicas share no budget. */}}
{{- if ne $kind "memory" }}
{{- $_ := set $config "max_replicas" (add (int $values.replicas) 1) }}
{{- end }}
{{- $store := deepCopy (default (dict) $config.store) }}
{{- $_ := set $store "kind" $kind }}
{{- if eq $kind "kubernetes" }}
{{- $_ := set $store "secret" (include "pgimbal.storeSecret" .) }}
{{- $_ := set $store "namespace" .Release.Namespace }}
{{- end }}
{{- $_ := set $config "store" $store }}
{{- if $values.peers.enabled }}
{{- $peers := deepCopy (default (dict) $config.peers) }}
{{- $_ := set $peers "listen" (printf "%s:%d" $at (int $values.peers.port)) }}
{{- $_ := set $peers "dns" (include "pgimbal.peersName" .) }}
{{- $_ := set $config "peers" $peers }}
{{- end }}
{{- $http := deepCopy (default (dict) $config.http) }}
{{- range $option, $key := include "pgimbal.pageKeys" . | fromYaml }}
{{- if hasKey $http $option }}
{{- fail (printf "config.http.%s: the chart sets it, from page" $option) }}
{{- end }}
{{- $_ := set $http $option (printf "/etc/pgimbal/page/%s" $key) }}
{{- $_ := set $config "http" $http }}
{{- end }}
{{- if include "pgimbal.tlsSecret" . }}
{{- $tls := deepCopy (default (dict) $config.client_tls) }}
{{- $_ := set $tls "sslmode" (default $values.clientTls.sslmode $tls.sslmode) }}
{{- $_ := set $tls "cert_file" "/etc/pgimbal/tls/tls.crt" }}
{{- $_ := set $tls "key_file" "/etc/pgimbal/tls/tls.key" }}
{{- $_ := set $config "client_tls" $tls }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* A key of TOML. */}}
{{- define "pgimbal.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}

{{/* A table as TOML: key "table", and its name in "path". JSON's strings, numbers and lists are
TOML's too. */}}
{{- define "pgimbal.toml" -}}
{{- $path := .path }}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "pgimbal.tomlKey" $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $name := include "pgimbal.tomlKey" $key }}
{{- if $path }}
{{- $name = printf "%s.%s" $path $name }}
{{- end }}
{{- $has := dict "own" (not $value) }}
{{- range $value }}
{{- if not (or (kindIs "map" .) (kindIs "invalid" .)) }}
{{- $_ := set $has "own" true }}
{{- end }}
{{- end }}
{{- if and $has.own (or $path $value) }}

[{{ $name }}]
{{- end }}
{{- include "pgimbal.toml" (dict "path" $name "table" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{/* pgimbal.toml. */}}
{{- define "pgimbal.file" -}}
# Made by the chart; `pgimbal config reference` explains every option.
{{- include "pgimbal.toml" (dict "path" "" "table" (include "pgimbal.config" . | fromYaml)) }}
{{ end }}

{{/* Labels of the pod of `helm test`, which is no pgimbal. */}}
{{- define "pgimbal.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
