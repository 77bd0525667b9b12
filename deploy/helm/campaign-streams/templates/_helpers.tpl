{{/* Services must begin with a letter; releases need not. */}}
{{- define "cs.name" -}}
{{- if not (regexMatch "^[a-z]" .Release.Name) }}{{ printf "%s-%s" .Chart.Name .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Labels that select; `part` is worker or notifier. */}}
{{- define "cs.selector" -}}
app.kubernetes.io/instance: {{ quote .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* The name is also Prometheus' job: the alert rules go by it. */}}
{{- define "cs.labels" -}}
{{ include "cs.selector" . }}
app.kubernetes.io/name: {{ if eq .part "notifier" }}campaign-streams-notifier{{ else }}campaign-streams{{ end }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "cs.account" -}}
{{- .Values.serviceAccount.name | default (ternary (include "cs.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "cs.maxReplicas" -}}
{{- $partitions := int .Values.settings.kafka.partitions }}
{{- $wanted := int (.Values.autoscaling.maxReplicas | default $partitions) }}
{{- if gt $wanted $partitions }}
{{- fail (printf "autoscaling.maxReplicas is %d, but only %d workers can have a partition" $wanted $partitions) }}
{{- end }}
{{- $least := int .Values.autoscaling.minReplicas }}
{{- if gt $least $wanted }}
{{- fail (printf "autoscaling.minReplicas is %d, but at most %d are allowed, by maxReplicas and the partitions" $least $wanted) }}
{{- end }}
{{- $wanted }}
{{- end }}

{{/* Settings as environment variables: text as it is, everything else as JSON. */}}
{{- define "cs.environment" -}}
{{- range $section, $fields := omit .Values.settings "rules" }}
{{- range $name, $value := $fields }}
{{- if not (kindIs "invalid" $value) }}
CAMPAIGN_STREAMS_{{ upper $section }}__{{ upper $name }}: {{ (kindIs "string" $value | ternary $value (toJson $value)) | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.settings.rules }}
CAMPAIGN_STREAMS_RULES: {{ toJson . | quote }}
{{- end }}
CAMPAIGN_STREAMS_WORKER__WEB_HOST: "0.0.0.0"
CAMPAIGN_STREAMS_WORKER__STATE_DIR: "/var/lib/campaign-streams"
CAMPAIGN_STREAMS_DELIVERY__IN_WORKER: {{ not .Values.notifier.enabled | quote }}
{{- if .Values.tls.secretName }}
{{- with .Values.tls.ca }}
CAMPAIGN_STREAMS_KAFKA__SSL_CAFILE: "/etc/campaign-streams/tls/{{ . }}"
{{- end }}
{{- with .Values.tls.cert }}
CAMPAIGN_STREAMS_KAFKA__SSL_CERTFILE: "/etc/campaign-streams/tls/{{ . }}"
{{- end }}
{{- with .Values.tls.key }}
CAMPAIGN_STREAMS_KAFKA__SSL_KEYFILE: "/etc/campaign-streams/tls/{{ . }}"
{{- end }}
{{- end }}
{{- end }}

{{/* The one container of a pod: `root`, `part` and `port`. */}}
{{- define "cs.container" -}}
name: {{ .part }}
image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .part }}]
envFrom:
  - configMapRef: {name: {{ include "cs.name" .root }}}
  {{- range .root.Values.secrets.existing }}
  - secretRef: {name: {{ quote . }}}
  {{- end }}
  {{- if .root.Values.secrets.create }}
  - secretRef: {name: {{ include "cs.name" .root }}}
  {{- end }}
ports:
  - {name: web, containerPort: {{ int .port }}}
# It may start slowly: Kafka and its topics come first.
startupProbe:
  httpGet: {path: /health/live, port: web}
  periodSeconds: 5
  timeoutSeconds: 4
  failureThreshold: 60
# The loop and its clockwork turn. Outages of Kafka and ClickHouse do not count: a restart would not end them.
livenessProbe:
  httpGet: {path: /health/live, port: web}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
# Partitions assigned, state loaded, ticks confirmed: a rollout waits for it before the next worker.
readinessProbe:
  httpGet: {path: /health/ready, port: web}
  periodSeconds: 5
  timeoutSeconds: 4
  failureThreshold: 3
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: state, mountPath: /var/lib/campaign-streams}
  - {name: scratch, mountPath: /tmp}
  {{- if .root.Values.tls.secretName }}
  - {name: tls, mountPath: /etc/campaign-streams/tls, readOnly: true}
  {{- end }}
  {{- if eq .part "worker" }}
  {{- with .root.Values.worker.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end }}

{{- define "cs.pod" -}}
serviceAccountName: {{ include "cs.account" .root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
volumes: # nothing that must outlive the pod: journal and checkpoints are in Kafka
  - {name: state, emptyDir: {}}
  - {name: scratch, emptyDir: {}}
  {{- with .root.Values.tls.secretName }}
  - {name: tls, secret: {secretName: {{ quote . }}}}
  {{- end }}
  {{- if eq .part "worker" }}
  {{- with .root.Values.worker.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end }}
