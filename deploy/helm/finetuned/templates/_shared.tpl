{{/* What several parts have in common. */}}

{{- define "finetuned.selector" -}}
app.kubernetes.io/instance: {{ .release.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "finetuned.labels" -}}
app.kubernetes.io/name: finetuned
app.kubernetes.io/version: {{ .release.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .release.Release.Service }}
{{ include "finetuned.selector" . }}
{{- end }}

{{- define "finetuned.image" -}}
{{ with .release.Values.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image }}:{{ .release.Values.tag | default .release.Chart.AppVersion }}
{{- end }}

{{/* Service links off: else a Service's variables, such as FINETUNED_PORT of a release "finetuned", would be settings. */}}
{{- define "finetuned.pod" -}}
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .release.Values.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "finetuned.container" -}}
imagePullPolicy: {{ .Values.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
  readOnlyRootFilesystem: true
{{- end }}

{{/* Only the keys that a pod needs. Not in /run/secrets, which holds the token of a service account. */}}
{{- define "finetuned.secrets" -}}
- name: secrets
  secret:
    secretName: {{ .release.Values.secret }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}

{{- define "finetuned.variables" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "finetuned.databaseUrl" -}}
{{- $database := .release.Values.database -}}
postgresql+psycopg://{{ .user }}@{{ $database.host | default (print .release.Release.Name "-postgres") }}:{{ $database.port }}/{{ $database.name }}{{ with $database.options }}?{{ . }}{{ end }}
{{- end }}

{{- define "finetuned.brokerUrl" -}}
{{- $broker := .release.Values.broker -}}
redis://{{ .user }}@{{ $broker.host | default (print .release.Release.Name "-valkey") }}:{{ $broker.port }}/0
{{- end }}

{{/* Variables that API and workers share. */}}
{{- define "finetuned.environment" -}}
- name: FINETUNED_HOME
  value: /var/lib/finetuned
{{- if .Values.data.claim }}
- name: FINETUNED_ALLOWED_PATHS
  value: /data/models:/data/datasets
{{- end }}
- name: FINETUNED_STORAGE_SECRET_KEY_FILE
  value: /secrets/storage_secret_key
{{- include "finetuned.variables" .Values.settings }}
{{- end }}

{{- define "finetuned.mounts" -}}
- {name: home, mountPath: /var/lib/finetuned}
{{- if .Values.data.claim }}
- {name: data, mountPath: /data, readOnly: true}
{{- end }}
- {name: secrets, mountPath: /secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "finetuned.homeClaim" -}}
{{ .Values.home.claim | default (print .Release.Name "-home") }}
{{- end }}

{{- define "finetuned.volumes" -}}
- name: home
  persistentVolumeClaim: {claimName: {{ include "finetuned.homeClaim" . }}}
{{- with .Values.data.claim }}
- name: data
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
- name: tmp
  emptyDir: {}
{{- end }}

{{/* A NetworkPolicy by which only API and workers reach a part. */}}
{{- define "finetuned.onlyOurs" -}}
podSelector:
  matchLabels: {{- include "finetuned.selector" . | nindent 4 }}
policyTypes: [Ingress]
ingress:
  - from:
      - podSelector:
          matchLabels: {app.kubernetes.io/instance: {{ .release.Release.Name }}}
          matchExpressions:
            - {key: app.kubernetes.io/component, operator: In, values: [api, worker]}
    ports:
      - {port: {{ .port }}, protocol: TCP}
{{- end }}
