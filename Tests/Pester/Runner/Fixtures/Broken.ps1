# A file that ends too early, for Runner.Tests.ps1.

Describe 'Broken' {
