data "aws_iam_policy_document" "ecs_tasks" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

# What `triad run` and `triad job` do with the store, and no more. Nothing of it deletes data:
# `triad gc` is for people.
data "aws_iam_policy_document" "store" {
  statement {
    sid       = "Objects"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.store.arn}/${var.prefix}/*"]
  }
  # What a process needs kept while it runs.
  statement {
    sid       = "Holds"
    actions   = ["s3:DeleteObject"]
    resources = ["${aws_s3_bucket.store.arn}/${var.prefix}/runs/*"]
  }
  # Checkpoints are listed. S3 also asks for it before it says of an object that it is not there,
  # which is how a stage is found not to be committed; that request has no prefix.
  statement {
    sid       = "Listing"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.store.arn]
    condition {
      test     = "StringLikeIfExists"
      variable = "s3:prefix"
      values   = ["${var.prefix}/*"]
    }
  }
}

# What `triad` has in a container.
resource "aws_iam_role" "job" {
  name               = "${var.name}-job"
  assume_role_policy = data.aws_iam_policy_document.ecs_tasks.json
}

resource "aws_iam_role_policy" "job_store" {
  name   = "store"
  role   = aws_iam_role.job.id
  policy = data.aws_iam_policy_document.store.json
}

# What ECS has before the container starts: it pulls the image, opens the log and reads the secrets.
resource "aws_iam_role" "execution" {
  name               = "${var.name}-execution"
  assume_role_policy = data.aws_iam_policy_document.ecs_tasks.json
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

data "aws_iam_policy_document" "secrets" {
  count = length(var.secrets) > 0 ? 1 : 0
  statement {
    actions   = ["secretsmanager:GetSecretValue", "ssm:GetParameters"]
    resources = values(var.secrets)
  }
}

resource "aws_iam_role_policy" "execution_secrets" {
  count  = length(var.secrets) > 0 ? 1 : 0
  name   = "secrets"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.secrets[0].json
}

# What the machines have. Containers do not get at it: see the launch template.
data "aws_iam_policy_document" "ec2" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "instance" {
  name               = "${var.name}-instance"
  assume_role_policy = data.aws_iam_policy_document.ec2.json
}

resource "aws_iam_role_policy_attachment" "instance" {
  role       = aws_iam_role.instance.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
}

resource "aws_iam_instance_profile" "instance" {
  name = "${var.name}-instance"
  role = aws_iam_role.instance.name
}

# What Batch itself has.
data "aws_iam_policy_document" "batch" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["batch.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_iam_role" "service" {
  name               = "${var.name}-service"
  assume_role_policy = data.aws_iam_policy_document.batch.json
}

resource "aws_iam_role_policy_attachment" "service" {
  role       = aws_iam_role.service.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/service-role/AWSBatchServiceRole"
}

# For whoever calls `triad run --on aws-batch`: attach it to people or to CI.
data "aws_iam_policy_document" "submitter" {
  source_policy_documents = [data.aws_iam_policy_document.store.json]

  statement {
    sid     = "Submit"
    actions = ["batch:SubmitJob"]
    resources = concat(
      [for queue in aws_batch_job_queue.pool : queue.arn],
      ["arn:${local.partition}:batch:${var.region}:${local.account}:job-definition/triad-*"],
    )
  }
  statement {
    sid       = "Define"
    actions   = ["batch:RegisterJobDefinition"]
    resources = ["arn:${local.partition}:batch:${var.region}:${local.account}:job-definition/triad-*"]
  }
  statement {
    sid     = "Tag"
    actions = ["batch:TagResource"]
    resources = [
      "arn:${local.partition}:batch:${var.region}:${local.account}:job/*",
      "arn:${local.partition}:batch:${var.region}:${local.account}:job-definition/triad-*",
    ]
  }
  # Batch knows no resources for these.
  statement {
    sid       = "Watch"
    actions   = ["batch:DescribeJobDefinitions", "batch:DescribeJobs", "batch:ListJobs"]
    resources = ["*"]
  }
  statement {
    sid       = "Cancel"
    actions   = ["batch:TerminateJob"]
    resources = ["arn:${local.partition}:batch:${var.region}:${local.account}:job/*"]
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/triad:artifact"
      values   = ["false"]
    }
  }
  statement {
    sid       = "Logs"
    actions   = ["logs:GetLogEvents"]
    resources = ["${aws_cloudwatch_log_group.jobs.arn}:log-stream:*"]
  }
  statement {
    sid       = "Roles"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.job.arn, aws_iam_role.execution.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "submitter" {
  name   = "${var.name}-submitter"
  policy = data.aws_iam_policy_document.submitter.json
}
