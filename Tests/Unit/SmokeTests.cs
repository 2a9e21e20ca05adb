namespace FCtrans.Unit.Tests;
public sealed class SmokeTests { [Xunit.Fact] public void T() => Xunit.Assert.True(true); }
