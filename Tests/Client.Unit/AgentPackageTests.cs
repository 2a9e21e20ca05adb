namespace FCtrans.Client.Unit.Tests;

/// <summary>The agent that the module brings.</summary>
public sealed class AgentPackageTests
{
    [Fact]
    public void AModuleWithoutItsAgentSaysSoAndWhatToDo()
    {
        string path = Path.Combine(Path.GetTempPath(), Guid.NewGuid().ToString("N"), "fctrans-agent");
        FCtransException failure = Assert.Throws<FCtransException>(() => AgentPackage.Load(path, "1.0.0"));
        Assert.Equal(nameof(Failure.AgentPackageMissing), failure.ErrorId);
        Assert.Contains(path, failure.Message);
        Assert.Contains("Install the module anew", failure.Message);
    }
}
