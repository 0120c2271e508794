{{/* Names are fixed, not derived from the release: the policies and the operator itself must agree on them. */}}
{{- define "vrampack.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: vrampack
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "vrampack.selector" -}}
app.kubernetes.io/name: vrampack
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "vrampack.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* As the API server names the operator in a request. */}}
{{- define "vrampack.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:vrampack
{{- end }}

{{/* What the Pod Security standard "restricted" asks of a container, and a read-only root on top. */}}
{{- define "vrampack.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "vrampack.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}
