variable "region" {
  type        = string
  description = "Where the bucket and the machines are."
}

variable "name" {
  type        = string
  description = "What the names of everything begin with."
  default     = "triad"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,29}$", var.name))
    error_message = "name: up to 30 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "bucket" {
  type        = string
  description = "Name of the bucket, unique in the world."
}

variable "prefix" {
  type        = string
  description = "Where in the bucket the store lies: jobs see nothing else."
  default     = "store"
  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$", var.prefix))
    error_message = "prefix: without a slash at its beginning or end."
  }
}

variable "vpc_id" {
  type        = string
  description = "Network of the machines."
}

variable "subnet_ids" {
  type        = list(string)
  description = "Of that network, with a way to S3, ECR, ECS and CloudWatch Logs (a NAT gateway, or endpoints)."
}

variable "images" {
  type        = object({ cpu = string, torch = string })
  description = "Images of the containers, by digest or a tag that does not move."
}

variable "secrets" {
  type        = map(string)
  description = "Environment variables of the containers by the ARN of what they hold, in Secrets Manager or Parameter Store."
  default     = {}
}

variable "cpu_instance_types" {
  type        = list(string)
  description = "Machines of stages without a GPU."
  default     = ["c7i", "m7i"]
}

variable "cpu_max_vcpus" {
  type        = number
  description = "Most vCPUs of those at a time."
  default     = 64
}

variable "cpu_spot" {
  type        = bool
  description = "Whether those are Spot: cheaper, and taken away now and then."
  default     = false
}

variable "gpu_instance_types" {
  type        = list(string)
  description = "Machines of stages with a GPU."
  default     = ["g6", "g6e"]
}

variable "gpu_max_vcpus" {
  type        = number
  description = "Most vCPUs of those at a time; 0: none at all."
  default     = 0
}

variable "gpu_spot" {
  type        = bool
  description = "Whether those are Spot."
  default     = true
}

variable "disk_gib" {
  type        = number
  description = "Disk of each machine: the image, and what stages keep in /tmp."
  default     = 100
}

variable "log_days" {
  type        = number
  description = "How long logs are kept."
  default     = 90
}
